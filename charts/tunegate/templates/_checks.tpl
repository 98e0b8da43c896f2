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
{{- end -}}
