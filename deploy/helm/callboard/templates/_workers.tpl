{{- /* (list TARGET SOURCE): SOURCE over TARGET, in place, maps in depth. Sprig's mergeOverwrite leaves out 0 and false. */ -}}
{{- define "callboard.mergeInto" -}}
{{- $target := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if and (kindIs "map" $value) (kindIs "map" (get $target $key)) -}}
{{- include "callboard.mergeInto" (list (get $target $key) $value) -}}
{{- else -}}
{{- $_ := set $target $key $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* A null of a set takes a default away. Helm itself does so only for keys that values.yaml has. */ -}}
{{- define "callboard.withoutNulls" -}}
{{- $map := . -}}
{{- range $key, $value := $map -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $map $key -}}
{{- else if kindIs "map" $value -}}
{{- include "callboard.withoutNulls" $value -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The worker sets that are on, merged over the defaults: {NAME: SET} as JSON. */ -}}
{{- define "callboard.workerSets" -}}
{{- $sets := dict -}}
{{- range $name, $own := .Values.workers -}}
{{- /* As a subchart's value a null may come through, which at the top takes the key away. */ -}}
{{- if not (kindIs "invalid" $own) -}}
{{- $set := deepCopy $.Values.workerDefaults -}}
{{- include "callboard.mergeInto" (list $set (deepCopy $own)) -}}
{{- /* Not `env`: a null there takes away what `env` for all has too. */ -}}
{{- range list "resources" "nodeSelector" "annotations" "podAnnotations" "podLabels" "strategy" -}}
{{- include "callboard.withoutNulls" (get $set . | default dict) -}}
{{- end -}}
{{- if $set.enabled -}}
{{- include "callboard.checkWorkerSet" (list $ $name $set) -}}
{{- $_ := set $sets $name $set -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- /* As JSON: a text that YAML cannot hold would make `fromYaml` a map with nothing but an error. */ -}}
{{- toJson $sets -}}
{{- end -}}

{{- /* (list $ NAME SET): fails with what is wrong, what was expected and what to do. */ -}}
{{- define "callboard.checkWorkerSet" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $set := index . 2 -}}
{{- $at := printf "workers.%s" $name -}}
{{- $scaling := $set.autoscaling -}}
{{- if and (has "*" $set.queues) (gt (len $set.queues) 1) -}}
{{- fail (printf "%s.queues: `*` means all queues and stands alone; got %s" $at (join ", " $set.queues)) -}}
{{- end -}}
{{- /* By an environment variable they would pass the checks below, and the HPA would not know. */ -}}
{{- range $name, $value := dict "CALLBOARD_WORKER_QUEUES" "queues" "CALLBOARD_WORKER_DRAIN_SECONDS" "drainSeconds" (ternary "CALLBOARD_WORKER_LOOP_SLOTS" "CALLBOARD_WORKER_SLOTS" (eq $set.isolation "loop")) "slots" -}}
{{- range $env, $variables := dict "env" $root.Values.env (printf "%s.env" $at) $set.env -}}
{{- if hasKey ($variables | default dict) $name -}}
{{- fail (printf "%s: %s is what %s.%s says; set that" $env $name $at $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- include "callboard.checkLabels" (list (printf "%s.podLabels" $at) $set.podLabels) -}}
{{- include "callboard.checkResources" (list $at $set.resources) -}}
{{- with (($set.resources | default dict).limits | default dict).memory -}}
{{- $limit := include "callboard.mebibytes" (list (printf "%s.resources.limits.memory" $at) .) | float64 -}}
{{- $slots := ternary 1 (int $set.slots) (eq $set.isolation "loop") -}}
{{- $slot := include "callboard.mebibytes" (list (printf "%s.slotMemory" $at) $set.slotMemory) | float64 -}}
{{- $runner := include "callboard.mebibytes" (list (printf "%s.runnerMemory" $at) $set.runnerMemory) | float64 -}}
{{- $need := addf (mulf (float64 $slots) $slot) $runner -}}
{{- $room := mulf $limit 0.85 -}}
{{- if gt $need $room -}}
{{- fail (printf "%s: %d slots × slotMemory %v + runnerMemory %v are %.0f MiB, but 0.85 of resources.limits.memory (%v) are %.0f MiB. Raise the limit to %.0fMi or more, or lower slots or slotMemory" $at $slots $set.slotMemory $set.runnerMemory $need . $room (ceil (divf $need 0.85))) -}}
{{- end -}}
{{- end -}}
{{- if not (kindIs "invalid" $set.terminationGracePeriodSeconds) -}}
{{- if lt (float64 $set.terminationGracePeriodSeconds) (addf $set.drainSeconds 30.0) -}}
{{- fail (printf "%s.terminationGracePeriodSeconds: %v is less than drainSeconds + 30 = %v: running tasks would be killed while they drain. Raise it, or leave it unset" $at $set.terminationGracePeriodSeconds (addf $set.drainSeconds 30.0)) -}}
{{- end -}}
{{- end -}}
{{- if ne $scaling.mode "none" -}}
{{- if not (kindIs "invalid" $set.replicas) -}}
{{- fail (printf "%s.replicas: with autoscaling.mode %s the autoscaler sets it; use autoscaling.minReplicas and maxReplicas" $at $scaling.mode) -}}
{{- end -}}
{{- if gt (float64 $scaling.minReplicas) (float64 $scaling.maxReplicas) -}}
{{- fail (printf "%s.autoscaling: minReplicas %v is above maxReplicas %v" $at $scaling.minReplicas $scaling.maxReplicas) -}}
{{- end -}}
{{- end -}}
{{- if eq $scaling.mode "hpa" -}}
{{- if or $scaling.keda.serverAddress $scaling.keda.query $scaling.keda.authenticationRef $scaling.keda.extraTriggers -}}
{{- fail (printf "%s.autoscaling: mode hpa and keda.* exclude each other (two autoscalers on one Deployment fight). Take keda.serverAddress, keda.query, keda.authenticationRef and keda.extraTriggers away, or set mode: keda" $at) -}}
{{- end -}}
{{- if and (eq (int $scaling.minReplicas) 0) (not (semverCompare ">=1.37.0-0" $root.Capabilities.KubeVersion.Version)) -}}
{{- fail (printf "%s.autoscaling.minReplicas: an HPA scales to 0 from Kubernetes 1.37 on; this is %s. Set 1 or more, or mode: keda" $at $root.Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- if eq $scaling.mode "keda" -}}
{{- if or $scaling.hpa.extraMetrics $scaling.hpa.matchLabels -}}
{{- fail (printf "%s.autoscaling: mode keda and hpa.* exclude each other (two autoscalers on one Deployment fight). Take hpa.extraMetrics and hpa.matchLabels away, or set mode: hpa" $at) -}}
{{- end -}}
{{- if not $scaling.keda.serverAddress -}}
{{- fail (printf "%s.autoscaling.keda.serverAddress: mode keda needs the address of Prometheus, for example http://prometheus.monitoring.svc:9090" $at) -}}
{{- end -}}
{{- include "callboard.needs" (list $root "keda.sh/v1alpha1" "ScaledObject" (printf "%s.autoscaling.mode keda" $at) "Install KEDA first, or set mode: hpa or none") -}}
{{- end -}}
{{- end -}}

{{- /* The `behavior` of a worker set's HPA: fast up, slow down. */ -}}
{{- define "callboard.behavior" -}}
{{- if .behavior -}}
{{- toYaml .behavior -}}
{{- else -}}
scaleUp:
  # A share of no pods is no pod: the second policy is what leaves zero.
  stabilizationWindowSeconds: 0
  selectPolicy: Max
  policies:
    - {type: Percent, value: 100, periodSeconds: 15}
    - {type: Pods, value: 4, periodSeconds: 15}
scaleDown:
  stabilizationWindowSeconds: {{ int .scaleDownStabilizationSeconds }}
  selectPolicy: Max
  policies:
    - {type: Percent, value: 10, periodSeconds: 60}
    - {type: Pods, value: 1, periodSeconds: 60}
{{- end -}}
{{- end -}}
