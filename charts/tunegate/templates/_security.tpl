{{/* What a pod may, as the values say. */}}
{{- define "tunegate.podSecurity" -}}
{{- toYaml .Values.podSecurityContext -}}
{{- end -}}

{{/* The same for a container, complete in itself: KServe's objects have no place for the pod's part. */}}
{{- define "tunegate.containerSecurity" -}}
{{- $inherited := pick .Values.podSecurityContext "runAsNonRoot" "runAsUser" "runAsGroup" "seccompProfile" -}}
{{- merge (deepCopy .Values.containerSecurityContext) $inherited | toYaml -}}
{{- end -}}
