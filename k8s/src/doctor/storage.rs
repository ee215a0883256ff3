//! Which provisioners make volumes that many nodes can write at the same time, and which do not. Names are those that the drivers'
//! own documentation gives for `provisioner` of a StorageClass.

/// What is known of a provisioner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shared {
    /// Its volumes can be ReadWriteMany.
    Yes,
    /// They cannot.
    No,
    /// It is not known here.
    Unknown,
}

/// Those that can, by the end of their names: installations put their namespace in front of some.
const CAN: [&str; 18] = [
    "driver.longhorn.io",
    "nfs.csi.k8s.io",
    "k8s-sigs.io/nfs-subdir-external-provisioner",
    "cluster.local/nfs-subdir-external-provisioner",
    "cluster.local/nfs-server-provisioner",
    "nfs.openebs.io",
    "openebs.io/nfsrwx",
    "cephfs.csi.ceph.com",
    "cephfs.manila.csi.openstack.org",
    "nfs.manila.csi.openstack.org",
    "file.csi.azure.com",
    "efs.csi.aws.com",
    "fsx.csi.aws.com",
    "filestore.csi.storage.gke.io",
    "org.gluster.glusterfs",
    "csi.juicefs.com",
    "beegfs.csi.netapp.com",
    "spectrumscale.csi.ibm.com",
];

/// Those that cannot: disks of one node.
const CANNOT: [&str; 12] = [
    "ebs.csi.aws.com",
    "disk.csi.azure.com",
    "pd.csi.storage.gke.io",
    "cinder.csi.openstack.org",
    "dobs.csi.digitalocean.com",
    "csi.hetzner.cloud",
    "linodebs.csi.linode.com",
    "rancher.io/local-path",
    "k8s.io/minikube-hostpath",
    "kubernetes.io/no-provisioner",
    "rbd.csi.ceph.com",
    "topolvm.io",
];

/// What is known of one.
pub(super) fn shared(provisioner: &str) -> Shared {
    let is = |name: &&str| provisioner.strip_suffix(*name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if CAN.iter().any(is) {
        Shared::Yes
    } else if CANNOT.iter().any(is) {
        Shared::No
    } else {
        Shared::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provisioners_are_known_by_their_names() {
        let table = [
            ("driver.longhorn.io", Shared::Yes),
            ("nfs.csi.k8s.io", Shared::Yes),
            ("rook-ceph.cephfs.csi.ceph.com", Shared::Yes),
            ("rook-ceph.rbd.csi.ceph.com", Shared::No),
            ("file.csi.azure.com", Shared::Yes),
            ("disk.csi.azure.com", Shared::No),
            ("efs.csi.aws.com", Shared::Yes),
            ("ebs.csi.aws.com", Shared::No),
            ("rancher.io/local-path", Shared::No),
            ("notdriver.longhorn.iox", Shared::Unknown),
            ("xnfs.csi.k8s.io", Shared::Unknown),
            ("", Shared::Unknown),
        ];
        for (provisioner, wanted) in table {
            assert_eq!(shared(provisioner), wanted, "{provisioner}");
        }
        assert!(CAN.iter().all(|name| !CANNOT.contains(name)));
    }
}
