{{/*
The files of pools: for each its bounds, and the template of its pods. Values that a pool does not say are those of poolDefaults.
Env that names the pod, its host name and its labels are put in by the master that makes it.
*/}}
{{- define "gristmill.pools" -}}
{{- $root := . -}}
{{- range $pool, $own := .Values.pools }}
{{- $of := mustMergeOverwrite (deepCopy $root.Values.poolDefaults) ($own | default dict) }}
{{- if gt (int $of.min) (int $of.max) }}
{{- fail (printf "pools.%s: min %d is more than max %d" $pool (int $of.min) (int $of.max)) }}
{{- end }}
{{ $pool }}.yaml: |
  min: {{ $of.min }}
  max: {{ $of.max }}
  idle: {{ $of.idle }}
  pending: {{ $of.pending }}
  startWithin: {{ $of.startWithin }}
  capabilities: {{ $of.capabilities | toJson }}
  template:
    {{- include "gristmill.workerPod" (list $root $of) | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "gristmill.workerPod" -}}
{{- $root := index . 0 -}}
{{- $of := index . 1 -}}
{{- $name := include "gristmill.name" $root -}}
metadata:
  labels: {{ $of.podLabels | toJson }}
  annotations: {{ $of.podAnnotations | toJson }}
spec:
  restartPolicy: Never
  subdomain: {{ $name }}-workers
  serviceAccountName: {{ include "gristmill.workerAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $of.terminationGracePeriodSeconds }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $key := list "priorityClassName" "runtimeClassName" }}
  {{- with index $of $key }}
  {{ $key }}: {{ . }}
  {{- end }}
  {{- end }}
  {{- range $key := list "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" }}
  {{- with index $of $key }}
  {{ $key }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
  securityContext:
    {{- include "gristmill.podSecurity" $root | nindent 4 }}
  containers:
    - name: worker
      image: {{ include "gristmill.image" (list $root $of.image) }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      args:
        - worker
        - --data=/var/lib/gristmill
        - --store={{ include "gristmill.store" $root }}
        - --masters={{ $name }}-masters.$(POD_NAMESPACE).svc:7070
        - --listen=0.0.0.0:7071
        - --advertise=$(POD_NAME).{{ $name }}-workers.$(POD_NAMESPACE).svc:7071
        - --name=$(POD_NAME)
        - --pod-uid=$(POD_UID)
        - --slots={{ $of.slots }}
        - --memory={{ $of.memory }}
        {{- if $root.Values.store.url }}
        - --input-cache={{ $of.inputCache }}
        {{- end }}
        {{- if ne $of.processes "never" }}
        - --processes={{ $of.processes }}
        - --sandbox={{ $of.sandbox }}
        - --code-scratch={{ $of.codeScratch }}
        {{- end }}
        {{- include "gristmill.tlsFlags" $root | trim | nindent 8 }}
        {{- with $of.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      env:
        # Programs look for a home that can be written. Compiled WebAssembly, up to 512MiB, is kept with the scratch.
        - {name: HOME, value: /tmp}
        - {name: XDG_CACHE_HOME, value: /var/lib/gristmill/cache}
        {{- with include "gristmill.storeEnv" $root }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $of.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with include "gristmill.storeEnvFrom" $root }}
      {{- . | nindent 6 }}
      {{- end }}
      ports:
        - {name: gristmill, containerPort: 7071, protocol: TCP}
      resources:
        {{- toYaml $of.resources | nindent 8 }}
      securityContext:
        {{- include "gristmill.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        - {name: scratch, mountPath: /var/lib/gristmill}
        {{- include "gristmill.mounts" $root | nindent 8 }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: {{ $of.tmpSize }}}
    - name: scratch
      {{- if $of.scratch.storageClass }}
      ephemeral:
        volumeClaimTemplate:
          spec:
            accessModes: [ReadWriteOnce]
            storageClassName: {{ $of.scratch.storageClass }}
            resources: {requests: {storage: {{ $of.scratch.size }}}}
      {{- else }}
      emptyDir: {sizeLimit: {{ $of.scratch.size }}}
      {{- end }}
    {{- include "gristmill.volumes" (list $root (include "gristmill.workerTls" $root)) | trim | nindent 4 }}
{{- end -}}
