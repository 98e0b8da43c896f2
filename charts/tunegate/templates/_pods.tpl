{{/* Where a component's pods run and how they rank, in the words of a pod's spec; takes the component's values. */}}
{{- define "tunegate.placement" -}}
{{- $found := dict -}}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" "runtimeClassName" -}}
{{- with index $ $name -}}
{{- $_ := set $found $name (eq $name "nodeSelector" | ternary (kindIs "map" . | ternary . dict | include "tunegate.words" | fromYaml) .) -}}
{{- end -}}
{{- end -}}
{{- with $found -}}{{ toYaml . }}{{- end -}}
{{- end -}}

{{/* The variables of the company's proxy and CA, and a component's own, which win; takes (list $ VALUES), or (list $ VALUES true)
for a container without the CA. A YAML list. */}}
{{- define "tunegate.environment" -}}
{{- $root := index . 0 -}}
{{- $variables := list -}}
{{- if and (include "tunegate.caVolume" $root) (lt (len .) 3) -}}
{{- range list "AWS_CA_BUNDLE" "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" -}}
{{- $variables = append $variables (dict "name" . "value" (printf "/etc/tunegate-ca/%s" $root.Values.caBundle.key)) -}}
{{- end -}}
{{- end -}}
{{- with $root.Values.proxy.httpProxy -}}{{- $variables = append $variables (dict "name" "HTTP_PROXY" "value" .) -}}{{- end -}}
{{- with $root.Values.proxy.httpsProxy -}}{{- $variables = append $variables (dict "name" "HTTPS_PROXY" "value" .) -}}{{- end -}}
{{- if or $root.Values.proxy.httpProxy $root.Values.proxy.httpsProxy -}}
{{- $variables = append $variables (dict "name" "NO_PROXY" "value" (include "tunegate.noProxy" $root)) -}}
{{- end -}}
{{- $own := (index . 1).extraEnv | default list -}}
{{- $names := list -}}
{{- range $own -}}{{- $names = append $names .name -}}{{- end -}}
{{- $kept := list -}}
{{- range $variables -}}{{- if not (has .name $names) -}}{{- $kept = append $kept . -}}{{- end -}}{{- end -}}
{{- concat $kept $own | toYaml -}}
{{- end -}}

{{/* What no proxy stands before: the pod itself, the API server, the cluster's names, its Prometheus, and what is named.
In a list with other names "*" is no word of urllib. */}}
{{- define "tunegate.noProxy" -}}
{{- $names := list "localhost" "127.0.0.1" "::1" "$(KUBERNETES_SERVICE_HOST)" ".svc" ".cluster.local" -}}
{{- with .Values.operator.prometheusUrl -}}{{- $names = append $names (urlParse . | dig "hostname" "") -}}{{- end -}}
{{- with .Values.proxy.noProxy -}}{{- $names = append $names . -}}{{- end -}}
{{- ternary "*" ($names | uniq | join ",") (has "*" (splitList "," (.Values.proxy.noProxy | default ""))) -}}
{{- end -}}

{{/* The volume with the company's CA, as a YAML object; empty where there is none. */}}
{{- define "tunegate.caVolume" -}}
{{- if .Values.caBundle.configMap -}}
{{- dict "name" "ca" "configMap" (dict "name" .Values.caBundle.configMap) | toYaml -}}
{{- else if .Values.caBundle.secret -}}
{{- dict "name" "ca" "secret" (dict "secretName" .Values.caBundle.secret) | toYaml -}}
{{- end -}}
{{- end -}}

{{- define "tunegate.caMount" -}}
{{- if include "tunegate.caVolume" . -}}
{{- dict "name" "ca" "mountPath" "/etc/tunegate-ca" "readOnly" true | toYaml -}}
{{- end -}}
{{- end -}}

{{/* What the store's Secret calls each variable. */}}
{{- define "tunegate.keyNames" -}}
AWS_ACCESS_KEY_ID: {{ .Values.store.secretKeys.accessKeyId | quote }}
AWS_SECRET_ACCESS_KEY: {{ .Values.store.secretKeys.secretAccessKey | quote }}
AWS_SESSION_TOKEN: {{ .Values.store.secretKeys.sessionToken | quote }}
{{- end -}}

{{/* The same for those that it calls something else. */}}
{{- define "tunegate.otherKeys" -}}
{{- if .Values.store.secretName -}}
{{- range $variable, $key := include "tunegate.keyNames" . | fromYaml }}
{{- if ne $variable $key }}
{{ $variable }}: {{ $key | quote }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Keys of the store from its Secret, which may be absent where a role takes their place. A YAML list. */}}
{{- define "tunegate.storeKeys" -}}
{{- with .Values.store.secretName }}
{{- range $variable, $key := include "tunegate.keyNames" $ | fromYaml }}
- name: {{ $variable }}
  valueFrom: {secretKeyRef: {name: {{ $.Values.store.secretName | quote }}, key: {{ $key | quote }}, optional: true}}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the operator gives the pods of one kind, as JSON; takes (list $ VALUES COMPONENT). Policies may say otherwise. */}}
{{- define "tunegate.releasePods" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 -}}
{{- $found := include "tunegate.placement" $own | fromYaml -}}
{{- $account := include "tunegate.account" . -}}
{{- if ne $account "default" -}}{{- $_ := set $found "serviceAccountName" $account -}}{{- end -}}
{{- $labels := dict -}}
{{- range list $root.Values.commonLabels $own.podLabels -}}
{{- range $name, $value := include "tunegate.words" . | fromYaml -}}{{- $_ := set $labels $name $value -}}{{- end -}}
{{- end -}}
{{- with $labels -}}{{- $_ := set $found "podLabels" . -}}{{- end -}}
{{- with include "tunegate.words" $own.podAnnotations | fromYaml -}}{{- $_ := set $found "podAnnotations" . -}}{{- end -}}
{{- with include "tunegate.environment" (list $root $own) | fromYamlArray -}}{{- $_ := set $found "extraEnv" . -}}{{- end -}}
{{- with include "tunegate.pullSecrets" $root | fromYaml -}}{{- $_ := set $found "imagePullSecrets" .imagePullSecrets -}}{{- end -}}
{{- with include "tunegate.caVolume" $root | fromYaml -}}{{- $_ := set $found "volumes" (list .) -}}{{- end -}}
{{- with include "tunegate.caMount" $root | fromYaml -}}{{- $_ := set $found "volumeMounts" (list .) -}}{{- end -}}
{{- $_ := set $found "podSecurityContext" $root.Values.podSecurityContext -}}
{{- $_ := set $found "containerSecurityContext" $root.Values.containerSecurityContext -}}
{{- if has (index . 2) (list "evaluation" "storage-initializer") -}}
{{- with include "tunegate.resources" $own.resources | fromYaml -}}{{- $_ := set $found "resources" . -}}{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* A flag with its value; takes (list NAME VALUE). A kubelet would replace $(NAME) in it. */}}
{{- define "tunegate.flag" -}}
{{- printf "--%s=%s" (index . 0) (index . 1 | toString | replace "$" "$$") | quote -}}
{{- end -}}

{{/* Requests and limits as Kubernetes takes them: amounts as words, and none that are null. */}}
{{- define "tunegate.resources" -}}
{{- $found := dict -}}
{{- range $part, $amounts := . -}}
{{- if kindIs "map" $amounts -}}
{{- $given := dict -}}
{{- range $name, $amount := $amounts -}}
{{- if not (kindIs "invalid" $amount) -}}
{{- $_ := set $given $name (kindIs "string" $amount | ternary $amount (toString $amount)) -}}
{{- end -}}
{{- end -}}
{{- with $given -}}{{- $_ := set $found $part . -}}{{- end -}}
{{- else if $amounts -}}
{{- $_ := set $found $part $amounts -}}
{{- end -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{/* A map of words without those that are null. */}}
{{- define "tunegate.words" -}}
{{- $found := dict -}}
{{- range $name, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}{{- $_ := set $found $name (toString $value) -}}{{- end -}}
{{- end -}}
{{- with $found -}}{{ toYaml . }}{{- end -}}
{{- end -}}
