//! A pod's volumes as folders: what is written into them, and where a container's mounts lead.
//!
//! Volumes; Projected Volumes; Persistent Volumes; ConfigMaps, "Mounted ConfigMaps are updated automatically".

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Inner, env};
use crate::admit::pod::TOKEN_FOLDER;
use crate::rbac::API;
use crate::server::kubeconfig;
use crate::state::now;
use crate::store::Key;

/// Files of a volume, by path, with their modes.
type Files = BTreeMap<PathBuf, (Vec<u8>, u32)>;

/// The folders of a pod's volumes.
pub(super) struct Volumes {
    root: PathBuf,
    folders: BTreeMap<String, PathBuf>,
    /// The token of the pod's service account, once it has one.
    token: Option<String>,
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A path that stays below where it is put.
fn below(path: &str) -> PathBuf {
    Path::new(path).components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

impl Volumes {
    /// Makes all folders and files. An error is what is missing, to be tried again.
    pub(super) fn make(inner: &Inner, pod: &Value, root: &Path, address: Ipv4Addr) -> Result<Volumes, String> {
        let mut volumes = Volumes { root: root.into(), folders: BTreeMap::new(), token: None };
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            let name = text(&volume["name"]).to_string();
            let folder =
                match (volume["hostPath"]["path"].as_str(), volume["persistentVolumeClaim"]["claimName"].as_str()) {
                    (Some(path), _) => PathBuf::from(path),
                    (_, Some(claim)) => claimed(inner, text(&pod["metadata"]["namespace"]), claim)?,
                    _ => root.join("volumes").join(&name),
                };
            fs::create_dir_all(&folder).map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
            volumes.folders.insert(name, folder);
        }
        volumes.refresh(inner, pod, address)?;
        Ok(volumes)
    }

    /// Writes what has changed of ConfigMaps, Secrets and the like, and takes away what they lost.
    pub(super) fn refresh(&mut self, inner: &Inner, pod: &Value, address: Ipv4Addr) -> Result<(), String> {
        for volume in pod["spec"]["volumes"].as_array().cloned().unwrap_or_default() {
            let Some(files) = self.files(inner, pod, &volume, address)? else { continue };
            let folder = &self.folders[text(&volume["name"])];
            write(folder, &files).map_err(|error| format!("cannot write {}: {error}", folder.display()))?;
        }
        Ok(())
    }

    /// What is in a volume that has its content from the API; `None`: it has not.
    fn files(
        &mut self,
        inner: &Inner,
        pod: &Value,
        volume: &Value,
        address: Ipv4Addr,
    ) -> Result<Option<Files>, String> {
        let mut files = Files::new();
        let (secret, map, fields) = (&volume["secret"], &volume["configMap"], &volume["downwardAPI"]);
        if secret.is_object() {
            keys(inner, pod, "secrets", text(&secret["secretName"]), secret, &mut files)?;
        } else if map.is_object() {
            keys(inner, pod, "configmaps", text(&map["name"]), map, &mut files)?;
        } else if fields.is_object() {
            downward(pod, fields, address, &mut files);
        } else if let Some(sources) = volume["projected"]["sources"].as_array() {
            for source in sources {
                for (field, storage) in [("secret", "secrets"), ("configMap", "configmaps")] {
                    if source[field].is_object() {
                        keys(inner, pod, storage, text(&source[field]["name"]), &source[field], &mut files)?;
                    }
                }
                if source["downwardAPI"].is_object() {
                    downward(pod, &source["downwardAPI"], address, &mut files);
                }
                if source["serviceAccountToken"].is_object() {
                    let path = below(text(&source["serviceAccountToken"]["path"]));
                    // Projected Volumes, "serviceAccountToken projected volumes": for the API server unless it says for whom.
                    let token = match text(&source["serviceAccountToken"]["audience"]) {
                        "" => self.token(inner, pod),
                        audience => token(inner, pod, audience),
                    };
                    files.insert(path, (token.into_bytes(), 0o600));
                }
            }
        } else {
            return Ok(None);
        }
        Ok(Some(files))
    }

    fn token(&mut self, inner: &Inner, pod: &Value) -> String {
        self.token.get_or_insert_with(|| token(inner, pod, API)).clone()
    }

    /// Mount paths of a container and the folders or files that they lead to.
    pub(super) fn mounts(&self, container: &Value, env: &BTreeMap<String, String>) -> Vec<(String, PathBuf)> {
        let mut mounts = Vec::new();
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let Some(folder) = self.folders.get(text(&mount["name"])) else { continue };
            let sub = match mount["subPathExpr"].as_str() {
                Some(sub) => env::expand(sub, env),
                None => text(&mount["subPath"]).to_string(),
            };
            let folder = if sub.is_empty() { folder.clone() } else { folder.join(below(&sub)) };
            if !folder.exists() {
                // A sub-path that is not there is made, as a folder.
                let _ = fs::create_dir_all(&folder);
            }
            mounts.push((text(&mount["mountPath"]).trim_end_matches('/').to_string(), folder));
        }
        mounts
    }

    /// A kubeconfig for a container that has a token mounted.
    pub(super) fn kubeconfig(&mut self, inner: &Inner, pod: &Value, container: &Value) -> Option<PathBuf> {
        let mut mounts = container["volumeMounts"].as_array()?.iter();
        mounts.find(|mount| mount["mountPath"] == TOKEN_FOLDER)?;
        let token = self.token(inner, pod);
        let path = self.root.join("kubeconfig");
        fs::write(&path, kubeconfig(inner.shared.port, &token, text(&pod["metadata"]["namespace"]))).ok()?;
        Some(path)
    }
}

/// A token of the pod's service account for this audience.
fn token(inner: &Inner, pod: &Value, audience: &str) -> String {
    let namespace = text(&pod["metadata"]["namespace"]);
    let account = pod["spec"]["serviceAccountName"].as_str().unwrap_or("default");
    let mut state = inner.shared.state();
    let found = state.get("serviceaccounts", namespace, account);
    let uid = found.map(|account| text(&account["metadata"]["uid"]).to_string()).unwrap_or_default();
    state.users.account_for(namespace, account, &uid, vec![audience.into()])
}

/// The folder of a claim, which outlives pods. A claim that is there is bound to a volume of its own.
fn claimed(inner: &Inner, namespace: &str, claim: &str) -> Result<PathBuf, String> {
    let key = Key::new("persistentvolumeclaims", namespace, claim);
    let mut state = inner.shared.state();
    let found = state.store.get(&key).ok_or_else(|| format!("persistentvolumeclaim \"{claim}\" not found"))?;
    let uid = text(&found["metadata"]["uid"]).to_string();
    if found["status"]["phase"] != "Bound" {
        let asked = &found["spec"]["resources"]["requests"];
        let modes = &found["spec"]["accessModes"];
        let name = format!("pvc-{uid}");
        let volume = json!({"metadata": {"name": name}, "spec": {"capacity": asked, "accessModes": modes,
            "persistentVolumeReclaimPolicy": "Delete", "hostPath": {"path": "/"},
            "claimRef": {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": claim, "uid": uid}}});
        // One of this name is this one.
        let _ = state.system("persistentvolumes", "", volume);
        state.change(&key, &uid, "", |claim| claim["spec"]["volumeName"] = json!(name));
        state.change(&key, &uid, "status", |claim| {
            claim["status"] = json!({"phase": "Bound", "accessModes": modes, "capacity": asked});
        });
    }
    // By uid: a claim that was deleted and made again is empty.
    Ok(inner.folder.path().join("claims").join(format!("{namespace}_{claim}_{uid}")))
}

/// Keys of a ConfigMap or Secret as files, all of them or those that `items` name.
fn keys(
    inner: &Inner,
    pod: &Value,
    storage: &str,
    name: &str,
    source: &Value,
    files: &mut Files,
) -> Result<(), String> {
    let object = inner.shared.state().get(storage, text(&pod["metadata"]["namespace"]), name);
    let Some(object) = object else {
        if source["optional"] == true {
            return Ok(());
        }
        let word = if storage == "secrets" { "secret" } else { "configmap" };
        return Err(format!("{word} \"{name}\" not found"));
    };
    let mut contents: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for (field, encoded) in [("data", storage == "secrets"), ("binaryData", true)] {
        for (key, value) in object[field].as_object().into_iter().flatten() {
            let bytes = text(value).as_bytes().to_vec();
            contents.insert(key, if encoded { STANDARD.decode(&bytes).unwrap_or_default() } else { bytes });
        }
    }
    let mode = source["defaultMode"].as_u64().and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644);
    match source["items"].as_array().filter(|items| !items.is_empty()) {
        None => files.extend(contents.into_iter().map(|(key, bytes)| (PathBuf::from(key), (bytes, mode)))),
        Some(items) => {
            for item in items {
                let key = text(&item["key"]);
                let missing = || format!("references non-existent config key: {key}");
                let mode = item["mode"].as_u64().and_then(|mode| u32::try_from(mode).ok()).unwrap_or(mode);
                match contents.remove(key) {
                    Some(bytes) => drop(files.insert(below(text(&item["path"])), (bytes, mode))),
                    None if source["optional"] == true => {}
                    None => return Err(missing()),
                }
            }
        }
    }
    Ok(())
}

fn downward(pod: &Value, source: &Value, address: Ipv4Addr, files: &mut Files) {
    for item in source["items"].as_array().into_iter().flatten() {
        let value = match item["fieldRef"]["fieldPath"].as_str() {
            Some(path) => env::field(pod, path, address),
            None => env::resource(pod, &Value::Null, &item["resourceFieldRef"]),
        };
        files.insert(below(text(&item["path"])), (value.unwrap_or_default().into_bytes(), 0o644));
    }
}

/// Each file is replaced at once, so that readers see the old or the new.
fn write(folder: &Path, files: &Files) -> io::Result<()> {
    for (path, (bytes, mode)) in files {
        let path = folder.join(path);
        if fs::read(&path).is_ok_and(|old| old == *bytes) {
            continue;
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let new = path.with_file_name(format!("..new-{}", now().len()));
        fs::write(&new, bytes)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(*mode))?;
        fs::rename(&new, &path)?;
    }
    for entry in fs::read_dir(folder)?.flatten() {
        let name = PathBuf::from(entry.file_name());
        if entry.path().is_file() && !files.contains_key(&name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below() {
        assert_eq!(below("../a/./b"), Path::new("a/b"));
        assert_eq!(below("/etc/x"), Path::new("etc/x"));
    }

    #[test]
    fn files_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let of = |names: &[(&str, &str)]| -> Files {
            names.iter().map(|(name, text)| (PathBuf::from(name), (text.as_bytes().to_vec(), 0o600))).collect()
        };
        write(folder.path(), &of(&[("a", "1"), ("b/c", "2")])).unwrap();
        write(folder.path(), &of(&[("b/c", "3")])).unwrap();
        assert!(!folder.path().join("a").exists());
        assert_eq!(fs::read_to_string(folder.path().join("b/c")).unwrap(), "3");
    }
}
