{{/* A quantity, such as 100m, 1.5Gi or 5e9, as a number. */}}
{{- define "tunegate.amount" -}}
{{- $text := toString . -}}
{{- $factors := dict "" 1.0 "n" 1e-9 "u" 1e-6 "m" 1e-3 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 "Pi" 1125899906842624.0 -}}
{{- $number := regexFind "^[0-9.]+([eE][+-]?[0-9]+)?" $text -}}
{{- mulf (float64 $number) (get $factors (trimPrefix $number $text)) -}}
{{- end -}}

{{/* Requests and limits of a storage initializer, on which KServe lays its own for each key that is not given: a limit that
would be less than the request, or a request that would be more than the limit, is given the same amount. */}}
{{- define "tunegate.overKserve" -}}
{{- $requests := deepCopy (.requests | default dict) -}}
{{- $limits := deepCopy (.limits | default dict) -}}
{{- $defaults := dict "cpu" (list "100m" "1") "memory" (list "100Mi" "1Gi") -}}
{{- range $name, $both := $defaults -}}
{{- $request := get $requests $name -}}
{{- $limit := get $limits $name -}}
{{- if and $request (not $limit) -}}
{{- if gt (include "tunegate.amount" $request | float64) (include "tunegate.amount" (index $both 1) | float64) -}}
{{- $_ := set $limits $name $request -}}
{{- end -}}
{{- else if and $limit (not $request) -}}
{{- if lt (include "tunegate.amount" $limit | float64) (include "tunegate.amount" (index $both 0) | float64) -}}
{{- $_ := set $requests $name $limit -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toYaml (dict "requests" $requests "limits" $limits) -}}
{{- end -}}
