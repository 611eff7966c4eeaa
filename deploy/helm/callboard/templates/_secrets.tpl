{{- /*
A password that stays: what the cluster's Secret holds, else a new one. A render makes it once and remembers it, so that
a checksum and the Secret agree. `helm template` and Argo CD see no cluster: give them an existing Secret.
(list $ SECRET KEY LENGTH)
*/ -}}
{{- define "callboard.kept" -}}
{{- $root := index . 0 -}}
{{- $slot := printf "%s/%s" (index . 1) (index . 2) -}}
{{- $made := get $root.Values "_made" | default dict -}}
{{- if not (hasKey $made $slot) -}}
{{- $there := (lookup "v1" "Secret" $root.Release.Namespace (index . 1)).data | default dict -}}
{{- $_ := set $made $slot (get $there (index . 2) | b64dec | default (randAlphaNum (index . 3))) -}}
{{- $_ := set $root.Values "_made" $made -}}
{{- end -}}
{{- get $made $slot -}}
{{- end -}}

{{- define "callboard.adminKey" -}}
{{- .Values.auth.adminKey | default (include "callboard.kept" (list . (include "callboard.authSecret" .) "admin-key" 40)) -}}
{{- end -}}

{{- define "callboard.valkeyPassword" -}}
{{- include "callboard.kept" (list . (include "callboard.valkeySecret" .) "password" 32) -}}
{{- end -}}

{{- /* (list $ SECRET): a hash of a Secret of yours, or nothing where no cluster is seen. */ -}}
{{- define "callboard.hashOf" -}}
{{- $root := index . 0 -}}
{{- with (lookup "v1" "Secret" $root.Release.Namespace (index . 1)).data -}}
{{- toJson . | sha256sum -}}
{{- end -}}
{{- end -}}

{{- /* (list $ AUTH): annotations that roll the pods when a secret changes, which processes read at their start. */ -}}
{{- define "callboard.checksums" -}}
{{- $root := index . 0 -}}
{{- $values := $root.Values -}}
{{- $hashes := dict -}}
{{- if and $values.valkey.enabled (not $values.valkey.existingSecret) -}}
{{- $_ := set $hashes "redis" (include "callboard.valkeyPassword" $root | sha256sum) -}}
{{- else -}}
{{- $_ := set $hashes "redis" (include "callboard.hashOf" (list $root (include "callboard.redisSecret" $root))) -}}
{{- with $values.redis.tls.existingSecret -}}
{{- $_ := set $hashes "redis-tls" (include "callboard.hashOf" (list $root .)) -}}
{{- end -}}
{{- end -}}
{{- with $values.database.existingSecret -}}
{{- $_ := set $hashes "database" (include "callboard.hashOf" (list $root .)) -}}
{{- end -}}
{{- if index . 1 -}}
{{- if $values.auth.existingSecret -}}
{{- $_ := set $hashes "auth" (include "callboard.hashOf" (list $root $values.auth.existingSecret)) -}}
{{- else -}}
{{- $_ := set $hashes "auth" (include "callboard.adminKey" $root | sha256sum) -}}
{{- end -}}
{{- end -}}
{{- range $name, $hash := $hashes }}
{{- if $hash }}
checksum/{{ $name }}: {{ $hash | quote }}
{{- end }}
{{- end }}
{{- end -}}
