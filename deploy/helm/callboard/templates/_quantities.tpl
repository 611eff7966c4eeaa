{{- /* A Kubernetes quantity as a plain number, as decimal text: "1.5Gi" -> "1610612736", "250m" -> "0.25". (list PATH QUANTITY) */ -}}
{{- define "callboard.quantity" -}}
{{- $quantity := index . 1 -}}
{{- $text := toString $quantity -}}
{{- if kindIs "float64" $quantity -}}{{- $text = printf "%f" $quantity -}}{{- end -}}
{{- if not (regexMatch "^[+]?([0-9]+[.]?[0-9]*|[.][0-9]+)(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})?$" $text) -}}
{{- fail (printf "%s: %q is no quantity: expected a number with Ki, Mi, Gi, Ti, m, k, M, G, T or nothing, for example 512Mi" (index . 0) $text) -}}
{{- end -}}
{{- $text = trimPrefix "+" $text -}}
{{- $number := regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" $text | float64 -}}
{{- $unit := regexReplaceAll "^[0-9.]+([eE][+-]?[0-9]+)?" $text "" -}}
{{- $of := dict "" 1.0 "n" 1e-9 "u" 1e-6 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 "Ei" 1152921504606846976.0 -}}
{{- printf "%f" (mulf $number (get $of $unit)) -}}
{{- end -}}

{{- /* (list PATH QUANTITY): memory in MiB, as decimal text: "1.5Gi" -> "1536". */ -}}
{{- define "callboard.mebibytes" -}}
{{- printf "%.3f" (divf (include "callboard.quantity" . | float64) 1048576.0) -}}
{{- end -}}

{{- /* (list PATH RESOURCES): fails for a request above its limit, which an API server would refuse when half is installed. */ -}}
{{- define "callboard.checkResources" -}}
{{- $path := index . 0 -}}
{{- $resources := index . 1 | default dict -}}
{{- $limits := $resources.limits | default dict -}}
{{- range $name, $request := $resources.requests -}}
{{- $limit := get $limits $name -}}
{{- if not (or (kindIs "invalid" $request) (kindIs "invalid" $limit) (eq (toString $limit) "")) -}}
{{- if gt (include "callboard.quantity" (list (printf "%s.resources.requests.%s" $path $name) $request) | float64) (include "callboard.quantity" (list (printf "%s.resources.limits.%s" $path $name) $limit) | float64) -}}
{{- fail (printf "%s.resources: requests.%s (%v) is above limits.%s (%v). Raise the limit, or lower the request" $path $name $request $name $limit) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
