{{- /* A Kubernetes quantity of memory in MiB, as a decimal text: "1.5Gi" -> "1536". */ -}}
{{- define "callboard.mebibytes" -}}
{{- $text := toString . -}}
{{- if kindIs "float64" . -}}{{- $text = printf "%.0f" . -}}{{- end -}}
{{- $number := regexFind "^[0-9.]+" $text | float64 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- $bytes := dict "" 1.0 "k" 1000.0 "M" 1000000.0 "G" 1000000000.0 "T" 1000000000000.0 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- if not (hasKey $bytes $unit) -}}
{{- fail (printf "%q is no quantity of memory: expected a number with Ki, Mi, Gi, Ti, k, M, G, T or nothing" $text) -}}
{{- end -}}
{{- printf "%.3f" (divf (mulf $number (get $bytes $unit)) 1048576.0) -}}
{{- end -}}
