"""The checks of k8s/deploy/check, which starts this with Helm and the Python packages at hand.

Each check is a function that yields what it found wrong, as lines for people. `--self-test` breaks copies of the chart, one way
for each check and more, and fails unless that check, by its name, tells.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

from broken import BROKEN

HERE = pathlib.Path(__file__).resolve().parent
RELEASE, NAMESPACE = "gristmill", "gristmill"
# How many versions of Kubernetes are supported, from the newest: as many as upstream maintains.
VERSIONS = 3
# Kinds that are no part of Kubernetes: there is no schema of upstream's for them.
FOREIGN = {"monitoring.coreos.com/v1/ServiceMonitor"}
CLUSTER_WIDE = {"Namespace", "ClusterRoleBinding", "CustomResourceDefinition"}

# Values that must be refused, and a word of why.
REFUSED = [
    (["masters.replicas=2"], "masters/replicas"),
    (["masters.replicas=0"], "masters/replicas"),
    (["master.replicas=3"], "additional properties 'master'"),
    (["masters.replica=3"], "additional properties 'replica'"),
    (["pools.Spot.min=0"], "invalid propertyName"),
    (["pools.a-name-that-is-too-long.min=0"], "invalid propertyName"),
    (["pools.default.mni=1"], "pools/default"),
    (["pools.default.min=-1"], "pools/default"),
    (["pools.default.slots=0"], "pools/default"),
    (["pools.default.processes=always"], "pools/default"),
    (["pools.default.sandbox=off"], "pools/default"),
    (["pools.default.idle=5 minutes"], "pools/default"),
    (["pools.default.min=5", "pools.default.max=4"], "min 5 is more than max 4"),
    (["poolDefaults.memory=lots"], "poolDefaults/memory"),
    (["poolDefaults.podLabels.gristmill\\.dev/pool=x"], "invalid propertyName"),
    (["poolDefaults.extraArgs[0]=serve"], "extraArgs"),
    (["store.url=http://bucket"], "store/url"),
    (["store.url=s3://"], "store/url"),
    (["store.volume.size=-1Gi"], "store/volume/size"),
    (["store.env.aws_region=x"], "invalid propertyName"),
    (["image.digest=sha256:abc"], "image/digest"),
    (["image.repository=gristmill:latest"], "image/repository"),
    (["user.uid=0"], "user/uid"),
    (["service.type=ExternalName"], "service/type"),
    (["service.port=70000"], "service/port"),
    (["ingress.enabled=true"], "ingress/hosts"),
    (["networkPolicy.apiServer.ports=null"], "networkPolicy/apiServer"),
    (["tls.enabled=false"], "set tls.nodeSecret"),
    (["fullnameOverride=a-name-that-is-much-too-long-for-pods"], "fullnameOverride"),
    (["tests.prefix=/abs"], "tests/prefix"),
]


class Tools:
    """Helm and what it is let loose on."""

    def __init__(self, folder, chart):
        self.folder, self.chart = folder, chart
        self._rendered = {}

    def helm(self, *arguments):
        with tempfile.TemporaryDirectory() as home:
            environment = {"PATH": os.environ["PATH"], "HOME": home}
            command = [str(self.folder / "helm"), *arguments]
            return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)

    def template(self, *arguments, release=RELEASE):
        return self.helm("template", release, str(self.chart), "--namespace", NAMESPACE, *arguments)

    def text(self, *arguments):
        """What a rendering that must succeed gives."""
        if arguments not in self._rendered:
            done = self.template(*arguments)
            if done.returncode:
                raise Failed(done.stderr.strip())
            self._rendered[arguments] = done.stdout
        return self._rendered[arguments]

    def cases(self):
        """Arguments for each rendering that is looked at, by name."""
        values = sorted(self.chart.glob("ci/*-values.yaml"))
        cases = {path.name.removesuffix("-values.yaml"): ("--values", str(path)) for path in values}
        return cases | {"manifests": ("--set", "plain=true")}

    def objects(self):
        """All objects of all renderings, each with words for where it is."""
        for case, arguments in self.cases().items():
            for one in yaml.safe_load_all(self.text(*arguments)):
                if one:
                    yield f"{case}: {one.get('kind')}/{one.get('metadata', {}).get('name')}", one


class Failed(Exception):
    """A step that others build on did not succeed."""


class LeftOut(Exception):
    """What a check looks at is not there."""


def versions():
    known = kubernetes_validate.utils.all_versions()
    newest = []
    for version in reversed(known):
        short = ".".join(version.split(".")[:2])
        if short not in newest:
            newest.append(short)
    return newest[:VERSIONS]


def pools(one):
    """The files of pools in an object, by name."""
    if one["kind"] == "ConfigMap" and one["metadata"]["name"].endswith("-pools"):
        for name, text in one["data"].items():
            yield name, text


def as_pod(name, template):
    """The pod of a pool's template, as a master makes it."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name.removesuffix(".yaml"), **template["metadata"]}}
    return {**pod, "spec": {"hostname": name.removesuffix(".yaml"), **template["spec"]}}


def pods(tools):
    """Everything that is a pod or becomes one, with words for where it is."""
    for where, one in tools.objects():
        if one["kind"] == "Pod":
            yield where, one["spec"]
        elif "template" in one.get("spec", {}):
            yield where, one["spec"]["template"]["spec"]
        for name, text in pools(one):
            yield f"{where}: pool {name}", yaml.safe_load(text)["template"]["spec"]


def containers(spec):
    for key in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(key) or []


# ---- The checks.


def lint(tools):
    """helm lint --strict, of each values file"""
    for case, arguments in tools.cases().items():
        done = tools.helm("lint", "--strict", str(tools.chart), *arguments)
        if done.returncode:
            yield f"{case}: {done.stdout.strip()} {done.stderr.strip()}"


def renders(tools):
    """helm template, of each values file and for each version"""
    for case, arguments in tools.cases().items():
        for version in versions():
            done = tools.template("--kube-version", version, *arguments)
            if done.returncode:
                yield f"{case}, Kubernetes {version}: {done.stderr.strip()}"
            elif not any(yaml.safe_load_all(done.stdout)):
                yield f"{case}, Kubernetes {version}: nothing was rendered"
    done = tools.template(release="a-release-of-twenty-six-le")
    if done.returncode == 0 or "may have 24" not in done.stderr:
        yield "a release whose name is too long is not refused"


def refuses(tools):
    """values.schema.json and the templates refuse bad values"""
    for values, why in REFUSED:
        done = tools.template(*(part for value in values for part in ("--set", value)))
        said = done.stderr.replace("(root).", "")
        # Helm 4 tells where with slashes, Helm 3 with dots.
        if done.returncode == 0:
            yield f"{' '.join(values)} is not refused"
        elif why not in said and why.replace("/", ".") not in said:
            yield f"{' '.join(values)} is refused for another reason than '{why}': {done.stderr.strip()}"


def commented(tools):
    """every value has a comment above it that says its default"""
    lines = (tools.chart / "values.yaml").read_text().splitlines()
    for number, line in enumerate(lines):
        found = re.match(r" *([A-Za-z]+):( [^&]*)?$", line)
        # The members of requests and limits are Kubernetes' own.
        if not found or found[1] in ("requests", "limits", "resources"):
            continue
        above = []
        while number and lines[number - 1].lstrip().startswith("#"):
            number -= 1
            above.append(lines[number])
        value = (found[2] or "").strip()
        if not above and value:
            yield f"values.yaml: {found[1]} has no comment: {line.strip()}"
        elif value and "default" not in " ".join(above).lower():
            yield f"values.yaml: {found[1]} does not say its default: {line.strip()}"


def known(tools):
    """every value is in the schema"""
    schema = json.loads((tools.chart / "values.schema.json").read_text())
    values = yaml.safe_load((tools.chart / "values.yaml").read_text())

    def resolve(part):
        if "allOf" in part:
            part = part["allOf"][0]
        if "$ref" in part:
            part = schema["definitions"][part["$ref"].rsplit("/", 1)[1]]
        return part

    def walk(value, part, path):
        part = resolve(part)
        if not isinstance(value, dict) or "properties" not in part:
            return
        if part.get("additionalProperties") is not False:
            yield f"{path or 'the schema'} lets anything through: additionalProperties is not false"
        for name in part["properties"]:
            if name not in value and path not in ("", "/poolDefaults/image", "/init/resources") and "resources" not in path:
                yield f"{path}/{name} is in the schema and not in values.yaml"
        for name, inner in value.items():
            if name not in part["properties"]:
                yield f"{path}/{name} is not in the schema"
            else:
                yield from walk(inner, part["properties"][name], f"{path}/{name}")

    yield from walk(values, schema, "")


def valid(tools):
    """every object is valid, strictly, in each version"""
    skipped = {}
    for version in versions():
        for where, one in tools.objects():
            kind = f"{one['apiVersion']}/{one['kind']}"
            if kind in FOREIGN:
                skipped[where] = kind
                continue
            yield from validated(f"{where}, Kubernetes {version}", one, version)
            for name, text in pools(one):
                pod = as_pod(name, yaml.safe_load(text)["template"])
                yield from validated(f"{where}: pool {name}, Kubernetes {version}", pod, version)
        for path in sorted(tools.chart.glob("crds/*.yaml")):
            for one in yaml.safe_load_all(path.read_text()):
                yield from validated(f"{path.name}, Kubernetes {version}", one, version)
    for where, kind in skipped.items():
        print(f"    {where} is skipped: no schema of upstream's for {kind}")


def validated(where, one, version):
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as e:
        path = ".".join(str(part) for part in e.path)
        yield f"{where}: {path}: {e.message}"
    except kubernetes_validate.SchemaNotFoundError as e:
        yield f"{where}: {e.message}"


# Upstream's schemas leave words of which there are few open; these are from its API reference, those that the chart uses.
WORDS = {
    "podManagementPolicy": {"OrderedReady", "Parallel"},
    "restartPolicy": {"Always", "OnFailure", "Never"},
    "imagePullPolicy": {"Always", "IfNotPresent", "Never"},
    "policyTypes": {"Ingress", "Egress"},
    "protocol": {"TCP", "UDP", "SCTP"},
    "scheme": {"HTTP", "HTTPS", "http", "https"},
    "accessModes": {"ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"},
    "whenUnsatisfiable": {"DoNotSchedule", "ScheduleAnyway"},
    "whenDeleted": {"Retain", "Delete"},
    "whenScaled": {"Retain", "Delete"},
    "pathType": {"Exact", "Prefix", "ImplementationSpecific"},
    "fsGroupChangePolicy": {"OnRootMismatch", "Always"},
    "effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    "operator": {"In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Equal"},
    "verbs": {"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"},
}


def words(tools):
    """words of which there are few are ones that Kubernetes knows"""

    def walk(value, where):
        if isinstance(value, list):
            for one in value:
                yield from walk(one, where)
        elif isinstance(value, dict):
            for key, one in value.items():
                said = [one] if isinstance(one, str) else one if isinstance(one, list) else []
                if key in WORDS:
                    yield from (f"{where}: {key} {word}" for word in said if word not in WORDS[key])
                yield from walk(one, where)

    for where, one in tools.objects():
        yield from walk(one, where)
        for name, text in pools(one):
            yield from walk(yaml.safe_load(text), f"{where}: pool {name}")


def restricted(tools):
    """every pod passes Pod Security `restricted`"""
    # Upstream's "Pod Security Standards", in its order: first Baseline, then Restricted. Each line names the field.
    volumes = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for where, spec in pods(tools):
        security = spec.get("securityContext", {})
        both = [("pod", security)] + [(c["name"], c.get("securityContext", {})) for c in containers(spec)]
        for field in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(field):
                yield f"{where}: spec.{field}"
        if security.get("sysctls"):
            yield f"{where}: spec.securityContext.sysctls"
        for name, of in both:
            if of.get("windowsOptions", {}).get("hostProcess"):
                yield f"{where}: {name}: securityContext.windowsOptions.hostProcess"
            if of.get("seLinuxOptions"):
                yield f"{where}: {name}: securityContext.seLinuxOptions"
            if of.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in ("RuntimeDefault", "Localhost"):
                yield f"{where}: {name}: securityContext.appArmorProfile.type"
            if of.get("runAsUser") == 0:
                yield f"{where}: {name}: securityContext.runAsUser is 0"
            if of.get("runAsNonRoot", security.get("runAsNonRoot")) is not True:
                yield f"{where}: {name}: securityContext.runAsNonRoot is not true"
            seccomp = of.get("seccompProfile", security.get("seccompProfile", {})).get("type")
            if seccomp not in ("RuntimeDefault", "Localhost"):
                yield f"{where}: {name}: securityContext.seccompProfile.type is {seccomp}"
        for volume in spec.get("volumes", []):
            for kind in set(volume) - {"name"} - volumes:
                yield f"{where}: spec.volumes {volume['name']} is a {kind}"
        for one in containers(spec):
            of = one.get("securityContext", {})
            if of.get("privileged"):
                yield f"{where}: {one['name']}: securityContext.privileged"
            if of.get("procMount", "Default") != "Default":
                yield f"{where}: {one['name']}: securityContext.procMount"
            if of.get("allowPrivilegeEscalation") is not False:
                yield f"{where}: {one['name']}: securityContext.allowPrivilegeEscalation is not false"
            capabilities = of.get("capabilities", {})
            if "ALL" not in capabilities.get("drop", []):
                yield f"{where}: {one['name']}: securityContext.capabilities.drop lacks ALL"
            if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
                yield f"{where}: {one['name']}: securityContext.capabilities.add"
            if any(port.get("hostPort") for port in one.get("ports", [])):
                yield f"{where}: {one['name']}: ports.hostPort"
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                for action in ("httpGet", "tcpSocket"):
                    if one.get(probe, {}).get(action, {}).get("host"):
                        yield f"{where}: {one['name']}: {probe}.{action}.host"


def bounded(tools):
    """every pod has bounds, writes into sized folders alone, and mounts no token by itself"""
    for where, spec in pods(tools):
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{where}: spec.automountServiceAccountToken is not false"
        if spec.get("enableServiceLinks") is not False:
            yield f"{where}: spec.enableServiceLinks is not false: it would make variables GRISTMILL_…"
        for volume in spec.get("volumes", []):
            if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
                yield f"{where}: spec.volumes {volume['name']} has no sizeLimit"
        names = [volume["name"] for volume in spec.get("volumes", [])]
        mounted = {mount["name"] for one in containers(spec) for mount in one.get("volumeMounts", [])}
        # volumeClaimTemplates are volumes of a StatefulSet's pods.
        claims = {"data"} if "StatefulSet" in where else set()
        for name in mounted - set(names) - claims:
            yield f"{where}: no volume {name} is there to be mounted"
        for name in set(names) - mounted:
            yield f"{where}: nothing mounts the volume {name}"
        if len(names) != len(set(names)):
            yield f"{where}: two volumes have one name"
        for one in containers(spec):
            if one.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
                yield f"{where}: {one['name']}: securityContext.readOnlyRootFilesystem is not true"
            paths = [mount["mountPath"] for mount in one.get("volumeMounts", [])]
            if len(paths) != len(set(paths)):
                yield f"{where}: {one['name']}: two volumes are mounted at one path"
            resources = one.get("resources", {})
            for kind, name in [("requests", "cpu"), *((k, n) for k in ("requests", "limits") for n in ("memory", "ephemeral-storage"))]:
                if not resources.get(kind, {}).get(name):
                    yield f"{where}: {one['name']}: resources.{kind} lacks {name}"


def fits(tools):
    """names agree: selectors, Services, Secrets, claims, accounts and files of pools"""
    for case, arguments in tools.cases().items():
        objects = [one for one in yaml.safe_load_all(tools.text(*arguments)) if one]
        yield from (f"{case}: {what}" for what in agreed(objects))


def agreed(objects):
    seen = set()
    for one in objects:
        key = one["kind"], one["metadata"]["name"]
        if key in seen:
            yield f"{key[0]}/{key[1]} is there twice"
        seen.add(key)
        namespace = one["metadata"].get("namespace")
        if (one["kind"] in CLUSTER_WIDE) != (namespace is None) or namespace not in (None, NAMESPACE):
            yield f"{key[0]}/{key[1]} is in the namespace {namespace}"
    master = next(one for one in objects if one["kind"] == "StatefulSet")
    name, spec = master["metadata"]["name"], master["spec"]
    labels = spec["template"]["metadata"]["labels"]
    worker = {**labels, "app.kubernetes.io/component": "worker"}
    selectors = {"Service": lambda s: s["selector"], "PodDisruptionBudget": lambda s: s["selector"]["matchLabels"]}
    for one in objects:
        if one["kind"] in selectors:
            selector = selectors[one["kind"]](one["spec"])
            wanted = worker if one["metadata"]["name"].endswith("-workers") else labels
            if not selector.items() <= wanted.items():
                yield f"{one['kind']}/{one['metadata']['name']} selects no pod: {selector}"
    if spec["serviceName"] != f"{name}-masters" or ("Service", f"{name}-masters") not in seen:
        yield f"there is no Service {name}-masters for names of masters"
    arguments = spec["template"]["spec"]["containers"][0]["args"]
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in arguments if "=" in argument)
    peers = flags["peers"].split(",")
    if len(peers) != spec["replicas"] or flags["advertise"].replace("$(POD_NAME)", f"{name}-0") != peers[0]:
        yield f"--peers {peers} are not {spec['replicas']} masters with the address that --advertise tells"
    files = next((list(pools(one)) for one in objects if list(pools(one))), [])
    if bool(files) != ("pools" in flags):
        yield "--pools is told where there is none, or the other way round"
    for pool, text in files:
        yield from (f"pool {pool}: {what}" for what in pool_agreed(pool, text, name, seen))
    # What pods use is there, given, or made by the init job.
    made = {n for one in objects if one["kind"] == "Role" for rule in one["rules"] for n in rule.get("resourceNames", [])}
    used = {v["secret"]["secretName"] for v in spec["template"]["spec"]["volumes"] if "secret" in v}
    used |= {v["secret"]["secretName"] for _, t in files for v in yaml.safe_load(t)["template"]["spec"]["volumes"] if "secret" in v}
    for secret in used:
        if secret.startswith(f"{name}-") and secret not in made:
            yield f"nobody makes the Secret {secret}"


def pool_agreed(pool, text, name, seen):
    # YAML 1.1 and 1.2 read these differently, and the program reads 1.2.
    for line in text.splitlines():
        if re.search(r":\s+(0[0-7]+|yes|no|on|off)\s*$", line, re.IGNORECASE):
            yield f"'{line.strip()}' means something else in YAML 1.2"
    of = yaml.safe_load(text)
    keys = {"min", "max", "idle", "pending", "startWithin", "capabilities", "template"}
    if set(of) != keys:
        yield f"has {sorted(set(of) ^ keys)} too much or too little"
    spec = of["template"]["spec"]
    if [one["name"] for one in spec["containers"]] != ["worker"]:
        yield "its container is not called worker"
    if spec.get("restartPolicy") != "Never":
        yield "its pods are started again by kubelet: restartPolicy is not Never"
    if ("Service", spec.get("subdomain")) not in seen:
        yield f"there is no Service {spec.get('subdomain')} for names of workers"
    env = {one["name"] for one in spec["containers"][0].get("env", [])}
    if env & {"POD_NAME", "POD_UID", "POD_IP", "POD_NAMESPACE"}:
        yield "it names env that masters add"
    if any("serviceAccountToken" in source for v in spec["volumes"] for source in v.get("projected", {}).get("sources", [])):
        yield "its pods have a token of the API"


def least(tools):
    """rights are those that k8s/README.md gives reasons for, and no others"""
    readme = HERE.parent / "README.md"
    rows = re.findall(r"^\| ([a-z-]+) \| `([a-z./0-9]*)` \| `([a-z/]+)` \| ([a-z, ]+) \|", readme.read_text(), re.MULTILINE)
    told = {(who, group, resource, verb.strip()) for who, group, resource, verbs in rows for verb in verbs.split(",")}
    given = set()
    for where, one in tools.objects():
        if one["kind"] == "ClusterRole":
            yield f"{where}: there is to be none"
        if one["kind"] == "ClusterRoleBinding" and one["roleRef"]["name"] != "system:auth-delegator":
            yield f"{where}: binds to {one['roleRef']['name']}"
        if one["kind"] == "Role":
            who = one["metadata"]["name"].rsplit("-", 1)[1]
            for rule in one["rules"]:
                for group in rule["apiGroups"]:
                    given |= {(who, group or "core", r, v) for r in rule["resources"] for v in rule["verbs"]}
    for right in sorted(given - told):
        yield f"{' '.join(right)}: it is given, and the README does not say why"
    for right in sorted(told - given):
        yield f"{' '.join(right)}: the README tells of it, and it is not given"


HEADER = """\
# Gristmill without Helm: `gristmill k8s manifests` prints this with your namespace, image, number of masters and store in it.
# It is the chart with its default values and plain=true; k8s/deploy/check --write makes it, and nobody edits it.
"""


def manifests(tools):
    text = tools.text("--set", "plain=true")
    text = re.sub(r"^# Source: .*\n", "", text, flags=re.MULTILINE)
    return HEADER + re.sub(r"\n+---\n", "\n---\n", text).rstrip() + "\n"


def embedded(tools):
    """manifests.yaml is what the chart renders, and says nothing of Helm"""
    path = HERE / "manifests.yaml"
    if not path.exists() or path.read_text() != manifests(tools):
        yield "manifests.yaml is not what the chart renders: run k8s/deploy/check --write"
    for number, line in enumerate(manifests(tools).splitlines()):
        if re.search(r"helm\.sh|managed-by", line):
            yield f"manifests.yaml:{number + 1}: {line.strip()}"


def generated(tools):
    """the resource's definition is the same in the chart and beside it"""
    chart, beside = tools.chart / "crds/mapreducejobs.yaml", HERE / "crd.yaml"
    if not chart.exists() and not beside.exists():
        raise LeftOut("there is none yet: `gristmill k8s crd` makes it")
    if not (chart.exists() and beside.exists() and chart.read_bytes() == beside.read_bytes()):
        yield "crd.yaml and chart/crds/mapreducejobs.yaml differ: make both with `gristmill k8s crd`"


def supported(tools):
    """k8s/README.md and Chart.yaml name the versions that are checked"""
    newest, *_, oldest = versions()
    if f"{oldest} to {newest}" not in (HERE.parent / "README.md").read_text():
        yield f"README.md does not say that {oldest} to {newest} are supported"
    least = re.search(r">=1\.(\d+)", yaml.safe_load((tools.chart / "Chart.yaml").read_text())["kubeVersion"])
    if int(least[1]) > int(oldest.split(".")[1]):
        yield f"Chart.yaml refuses {oldest}"


def flags(tools):
    """the program has the flags that pods give it"""
    program = os.environ.get("GRISTMILL")
    if not program:
        raise LeftOut("GRISTMILL does not name the program")
    helps = {}
    for where, spec in pods(tools):
        for one in containers(spec):
            arguments = one.get("args", [])
            words = [a for a in arguments if not a.startswith("-")]
            command = tuple(words[:2] if words[0] in ("k8s", "cluster", "data", "submit") else words[:1])
            if command not in helps:
                done = subprocess.run([program, *command, "--help"], capture_output=True, text=True, timeout=60, check=False)
                helps[command] = done.stdout
                if done.returncode:
                    yield f"{where}: `{' '.join(command)}` is no command: {done.stderr.strip()}"
            has = set(re.findall(r"--[a-z0-9-]+", helps[command]))
            for argument in arguments:
                flag = argument.split("=", 1)[0]
                if flag.startswith("--") and flag not in has:
                    yield f"{where}: `{' '.join(command)}` has no flag {flag}"


CHECKS = [lint, renders, refuses, commented, known, valid, words, restricted, bounded, fits, least, supported, embedded, generated, flags]


def run(tools, checks=CHECKS, quiet=False):
    """The names of the checks that failed, and of those that had nothing to look at."""
    failed, left_out = [], []
    for check in checks:
        wrong, said = [], "ok"
        try:
            wrong = list(check(tools))
        except LeftOut as e:
            left_out.append(check.__name__)
            said = f"left out, {e}"
        except Failed as e:
            wrong = [str(e)]
        except Exception as e:  # What is broken may be broken in any way.
            wrong = [f"{type(e).__name__}: {e}"]
        if wrong:
            failed.append(check.__name__)
            said = "FAILED"
        if not quiet:
            print(f"{check.__name__}: {check.__doc__}: {said}", flush=True)
            for line in wrong[:20]:
                print(f"    {line}")
            if len(wrong) > 20:
                print(f"    and {len(wrong) - 20} more")
    return failed, left_out


def self_test(folder):
    missed = 0
    for file, old, new, names in BROKEN:
        checks = [globals()[name] for name in names]
        with tempfile.TemporaryDirectory() as scratch:
            chart = pathlib.Path(scratch) / "gristmill"
            shutil.copytree(HERE / "chart", chart)
            path = chart / file
            if old is None:
                path.parent.mkdir(exist_ok=True)
                path.write_text(new)
            else:
                text = path.read_text()
                if old not in text:
                    print(f"{file} has no '{old.strip()}' that could be broken: FAILED")
                    missed += 1
                    continue
                path.write_text(text.replace(old, new))
            told, _ = run(Tools(folder, chart), checks, quiet=True)
            silent = [check.__name__ for check in checks if check.__name__ not in told]
            missed += bool(silent)
            what = f"{file}: {(old or '').strip()!r} -> {new.strip()!r}"
            print(f"{what}: {', '.join(c.__name__ for c in checks)}: {'FAILED' if silent else 'noticed'}", flush=True)
            for name in silent:
                print(f"    {name} did not notice")
    print(f"{len(BROKEN) - missed} passed, {missed} failed")
    return missed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tools", type=pathlib.Path, required=True)
    parser.add_argument("--write", action="store_true", help="write manifests.yaml anew")
    parser.add_argument("--self-test", action="store_true", help="see that each check notices what is broken")
    given = parser.parse_args()
    folder = given.tools.resolve()
    tools = Tools(folder, HERE / "chart")
    if given.self_test:
        sys.exit(1 if self_test(folder) else 0)
    helm = tools.helm("version", "--short")
    kubectl = subprocess.run([folder / "kubectl", "version", "--client"], capture_output=True, text=True, check=False)
    print(f"Helm {helm.stdout.strip()}; kubectl {kubectl.stdout.splitlines()[0] if kubectl.stdout else 'does not run'}")
    print(f"Kubernetes {', '.join(versions())}, of the {len(kubernetes_validate.utils.all_versions())} whose schemas are there")
    if helm.returncode or kubectl.returncode:
        sys.exit("check: the layer's programs do not run")
    if given.write:
        (HERE / "manifests.yaml").write_text(manifests(tools))
    failed, left_out = run(tools)
    print(f"{len(CHECKS) - len(failed) - len(left_out)} passed, {len(failed)} failed, {len(left_out)} skipped", flush=True)
    if failed:
        sys.exit(f"check: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
