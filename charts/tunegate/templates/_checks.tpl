{{/* Refuses an installation that could not work, each time with one sentence. Included once, by the operator. */}}
{{- define "tunegate.check" -}}
{{- $kserve := and (.Capabilities.APIVersions.Has "serving.kserve.io/v1beta1") (.Capabilities.APIVersions.Has "serving.kserve.io/v1alpha1") -}}
{{- if and .Values.serving.enabled (not $kserve) -}}
{{- fail "KServe is missing from this cluster (serving.kserve.io/v1beta1 and v1alpha1): install it first, or set serving.enabled=false." -}}
{{- end -}}
{{- if and .Values.traffic.gatewayApi (not (.Capabilities.APIVersions.Has "gateway.networking.k8s.io/v1")) -}}
{{- fail "The Gateway API is missing from this cluster (gateway.networking.k8s.io/v1): install it first, or set traffic.gatewayApi=false and traffic switches from 0 to 100 % at once." -}}
{{- end -}}
{{- $monitors := or .Values.monitoring.predictors.enabled .Values.monitoring.trainers.enabled .Values.monitoring.operator.enabled .Values.monitoring.rules.enabled -}}
{{- if and $monitors (not (.Capabilities.APIVersions.Has "monitoring.coreos.com/v1")) -}}
{{- fail "The Prometheus operator is missing from this cluster (monitoring.coreos.com/v1): install it first, or leave monitoring.predictors, monitoring.trainers, monitoring.operator and monitoring.rules disabled." -}}
{{- end -}}
{{- if and .Values.store.create (not (and .Values.store.accessKeyId .Values.store.secretAccessKey)) -}}
{{- fail "store.create=true makes the Secret from store.accessKeyId and store.secretAccessKey: set both." -}}
{{- end -}}
{{- if and .Values.storage.enabled (not .Values.store.secretName) -}}
{{- fail "storage.enabled=true runs a store that asks for keys: set store.secretName to the Secret that holds them." -}}
{{- end -}}
{{- if and .Values.caBundle.configMap .Values.caBundle.secret -}}
{{- fail "caBundle.configMap and caBundle.secret are both set: name the one that holds the certificates." -}}
{{- end -}}
{{- range $name, $resources := dict "operator" .Values.operator.resources "evaluation" .Values.evaluation.resources "serving" .Values.serving.resources "serving.vllm" .Values.serving.vllm.resources "serving.storageInitializer" .Values.serving.storageInitializer.resources "storage" .Values.storage.resources -}}
{{- include "tunegate.checkResources" (list $name (include "tunegate.resources" $resources | fromYaml)) -}}
{{- end -}}
{{- end -}}

{{/* Refuses limits below requests, for which every pod would be refused; takes (list NAME RESOURCES). */}}
{{- define "tunegate.checkResources" -}}
{{- $name := index . 0 -}}
{{- $limits := (index . 1).limits | default dict -}}
{{- range $what, $request := (index . 1).requests -}}
{{- $limit := get $limits $what -}}
{{- if and $limit (gt (include "tunegate.amount" $request | float64) (include "tunegate.amount" $limit | float64)) -}}
{{- printf "%s.resources requests %s of %s and limits it to %s, so no pod would start: raise limits.%s, or set it to null for no limit." $name $request $what $limit $what | fail -}}
{{- end -}}
{{- end -}}
{{- end -}}
