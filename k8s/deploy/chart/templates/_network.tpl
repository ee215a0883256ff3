{{/* Egress that masters and workers share: names, and the store where it is a bucket. */}}
{{- define "gristmill.commonEgress" -}}
{{ include "gristmill.dnsEgress" . }}
{{- if .Values.store.url }}
- ports:
    {{- range .Values.networkPolicy.store.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.store.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Egress to DNS. Policies look at the port of its pods, which is not that of its Service everywhere: OpenShift's have 5353. */}}
{{- define "gristmill.dnsEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    - {port: 5353, protocol: UDP}
    - {port: 5353, protocol: TCP}
  {{- with .Values.networkPolicy.dns }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Egress to the API server. */}}
{{- define "gristmill.apiEgress" -}}
- ports:
    {{- range .Values.networkPolicy.apiServer.ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.apiServer.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
