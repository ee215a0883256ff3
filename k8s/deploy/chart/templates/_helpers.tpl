{{/*
The name of everything: the release's, or fullnameOverride. Pods of workers are called NAME-POOL-GENERATION-INDEX, which has 63
characters at the most; so a name that is too long is refused rather than cut, because two that are cut alike would share pods.
*/}}
{{- define "gristmill.name" -}}
{{- $name := .Values.fullnameOverride | default .Release.Name -}}
{{- if gt (len $name) 24 -}}
{{- fail (printf "the name %q has %d characters and may have 24; set fullnameOverride" $name (len $name)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the name %q is none of a Service: small letters, digits and dashes, a letter first; set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{/* What selects pods of one component. Masters give the pods of workers the same labels. Call with (list . COMPONENT). */}}
{{- define "gristmill.selector" -}}
app.kubernetes.io/name: gristmill
app.kubernetes.io/instance: {{ include "gristmill.name" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of an object. Those that only mean something to Helm are left out where plain is set. */}}
{{- define "gristmill.labels" -}}
{{- $root := index . 0 -}}
{{ include "gristmill.selector" . }}
app.kubernetes.io/part-of: gristmill
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
{{- if not $root.Values.plain }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end }}
{{- end -}}

{{/* Annotations of a hook that runs before an install or upgrade. Call with (list . WEIGHT). */}}
{{- define "gristmill.hook" -}}
{{- if not (index . 0).Values.plain }}
annotations:
  helm.sh/hook: pre-install,pre-upgrade
  helm.sh/hook-weight: {{ index . 1 | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
{{- end -}}

{{/* An image by its tag or digest. Call with (list . IMAGE), where what IMAGE lacks is taken from the chart's. */}}
{{- define "gristmill.image" -}}
{{- $root := index . 0 -}}
{{- $own := index . 1 | default dict -}}
{{- $all := $root.Values.image -}}
{{- $repository := $own.repository | default $all.repository -}}
{{- if $own.digest -}}
{{- printf "%s@%s" $repository $own.digest -}}
{{- else if $own.tag -}}
{{- printf "%s:%s" $repository $own.tag -}}
{{- else if and $all.digest (eq $repository $all.repository) -}}
{{- printf "%s@%s" $repository $all.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository ($all.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{/* What Pod Security `restricted` asks of a pod, and one user for all files. */}}
{{- define "gristmill.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.user.uid }}
runAsUser: {{ . }}
{{- end }}
{{- with .Values.user.gid }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* What it asks of a container. */}}
{{- define "gristmill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Whether masters speak with the API server: for pools, the operator, or tokens of service accounts. */}}
{{- define "gristmill.speaksToApi" -}}
{{- if or .Values.pools .Values.operator.enabled .Values.serviceAccountTokens.enabled -}}true{{- end -}}
{{- end -}}

{{- define "gristmill.masterAccount" -}}{{ .Values.serviceAccounts.masters.name | default (printf "%s-master" (include "gristmill.name" .)) }}{{- end -}}
{{- define "gristmill.workerAccount" -}}{{ .Values.serviceAccounts.workers.name | default (printf "%s-worker" (include "gristmill.name" .)) }}{{- end -}}

{{/* The Secrets: given ones, or those that the init job makes. */}}
{{- define "gristmill.masterTls" -}}{{ .Values.tls.existingSecret.master | default (printf "%s-master-tls" (include "gristmill.name" .)) }}{{- end -}}
{{- define "gristmill.workerTls" -}}{{ .Values.tls.existingSecret.worker | default (printf "%s-worker-tls" (include "gristmill.name" .)) }}{{- end -}}
{{- define "gristmill.admin" -}}{{ .Values.admin.existingSecret | default (printf "%s-admin" (include "gristmill.name" .)) }}{{- end -}}

{{/* Whether a Secret is missing that the init job makes. */}}
{{- define "gristmill.makesSecrets" -}}
{{- $tls := .Values.tls -}}
{{- if and $tls.enabled (ne (empty $tls.existingSecret.master) (empty $tls.existingSecret.worker)) -}}
{{- fail "tls.existingSecret: give both master and worker, or neither: certificates of two authorities do not trust each other" -}}
{{- end -}}
{{- if or (not .Values.admin.existingSecret) (and $tls.enabled (not (and $tls.existingSecret.master $tls.existingSecret.worker))) -}}true{{- end -}}
{{- end -}}

{{/* Where the store is, as --store is told. */}}
{{- define "gristmill.store" -}}{{ .Values.store.url | default "/srv/gristmill" }}{{- end -}}
{{- define "gristmill.storeClaim" -}}{{ .Values.store.volume.existingClaim | default (printf "%s-store" (include "gristmill.name" .)) }}{{- end -}}

{{- define "gristmill.tlsFlags" -}}
{{- if .Values.tls.enabled }}
- --tls-ca=/etc/gristmill/tls/ca.crt
- --tls-cert=/etc/gristmill/tls/tls.crt
- --tls-key=/etc/gristmill/tls/tls.key
{{- else }}
- --insecure
- --node-secret=/etc/gristmill/node/secret
{{- end }}
{{- end -}}

{{/* What the store's client reads of its environment, in masters and workers alike. */}}
{{- define "gristmill.storeEnv" -}}
{{- $env := list -}}
{{- range $name, $value := ternary .Values.store.env dict (ne .Values.store.url "") -}}
{{- $env = append $env (dict "name" $name "value" ($value | toString)) -}}
{{- end -}}
{{- if $env }}{{ toYaml $env }}{{ end -}}
{{- end -}}

{{- define "gristmill.storeEnvFrom" -}}
{{- if and .Values.store.url .Values.store.existingSecret -}}
envFrom:
  - secretRef:
      name: {{ .Values.store.existingSecret }}
{{- end }}
{{- end -}}

{{/*
Volumes that masters and workers have alike, and where they are mounted. Call with (list . SECRET-OF-TLS). A mode of 288 is 0440,
which YAML 1.1 and 1.2 read differently.
*/}}
{{- define "gristmill.volumes" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.tls.enabled }}
- name: tls
  secret:
    secretName: {{ index . 1 }}
    # The authority's key, should it be in there, is for nobody in a pod.
    items:
      - {key: ca.crt, path: ca.crt}
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
    defaultMode: 288
{{- else }}
- name: node
  secret:
    secretName: {{ required "without TLS nodes know each other by a secret: set tls.nodeSecret to the name of a Secret with the key secret" $root.Values.tls.nodeSecret }}
    items: [{key: secret, path: secret}]
    defaultMode: 288
{{- end }}
{{- if not $root.Values.store.url }}
- name: store
  persistentVolumeClaim:
    claimName: {{ include "gristmill.storeClaim" $root }}
{{- end }}
{{- end -}}

{{- define "gristmill.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/gristmill/tls, readOnly: true}
{{- else }}
- {name: node, mountPath: /etc/gristmill/node, readOnly: true}
{{- end }}
{{- if not .Values.store.url }}
- {name: store, mountPath: /srv/gristmill}
{{- end }}
{{- end -}}

{{/* The token by which a pod speaks to the API server, where its ServiceAccount mounts none by itself. */}}
{{- define "gristmill.tokenVolume" -}}
- name: kubernetes
  projected:
    defaultMode: 288
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3607
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items:
            - path: namespace
              fieldRef: {fieldPath: metadata.namespace}
{{- end -}}

{{- define "gristmill.tokenMount" -}}
- {name: kubernetes, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
{{- end -}}

{{/* The downward API's part of a container's environment; in workers masters add it. */}}
{{- define "gristmill.downward" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_UID
  valueFrom: {fieldRef: {fieldPath: metadata.uid}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
{{- end -}}
