//! Who may do what: rights, the roles that are made of them, what each call needs, and the one function that decides.
//!
//! A right is a verb on a kind of resource, as in `jobs.cancel`; with `.any` behind it, it is on those of everybody, else
//! on one's own. [`CALLS`] has every call of every service; one that is not in it is answered to nobody. What a document
//! says of it (`docs/rights.md`) is printed from here.

mod calls;

use std::fmt;
use std::sync::Arc;

pub use calls::{CALLS, needs};

macro_rules! rights {
    ($($name:ident $text:literal $about:literal),+ $(,)?) => {
        /// Something that may be done.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Right {
            $(#[doc = $about] $name),+
        }

        /// All of them, as they are called, and what they allow.
        pub const RIGHTS: &[(Right, &str, &str)] = &[$((Right::$name, $text, $about)),+];
    };
}

rights! {
    JobsSubmit "jobs.submit" "Submit jobs, over files that one may read, to outputs that one may write",
    JobsRead "jobs.read" "See one's own jobs: their state, history, logs and results",
    JobsReadAny "jobs.read.any" "See everybody's jobs, but their results",
    JobsCancel "jobs.cancel" "Cancel and retry one's own jobs",
    JobsCancelAny "jobs.cancel.any" "Cancel and retry everybody's jobs",
    DataRead "data.read" "Read files below one's own prefix and below shared/",
    DataReadAny "data.read.any" "Read all files, and results of everybody's jobs",
    DataWrite "data.write" "Store and remove files below one's own prefix",
    DataWriteAny "data.write.any" "Store and remove any file",
    AppsRead "apps.read" "See and run apps that one has pushed",
    AppsReadAny "apps.read.any" "See and run apps that anybody has pushed",
    AppsPush "apps.push" "Push apps, and remove one's own",
    AppsPushAny "apps.push.any" "Push versions of everybody's apps, and remove them",
    ClusterRead "cluster.read" "See masters, workers and which apps they offer",
    WorkersDrain "workers.drain" "Drain workers",
    MembersChange "members.change" "Add and remove masters, and hand leadership over",
    TokensCreate "tokens.create" "Make tokens for machines, which may do no more than oneself",
    UsersRead "users.read" "See users, their sessions, roles and quotas",
    UsersManage "users.manage" "Add, change and remove users, end their sessions, and decide whether people may register",
    RolesManage "roles.manage" "Make and remove roles",
    KeysRotate "keys.rotate" "See and rotate the keys that sign tokens",
    AuditRead "audit.read" "Read the audit log",
    WorkersScale "workers.scale" "Change how many workers pools have, add and remove workers",
}

impl Right {
    /// As it is called.
    pub fn name(self) -> &'static str {
        RIGHTS.iter().find(|(right, ..)| *right == self).map_or("", |(_, name, _)| name)
    }

    /// By how it is called.
    pub fn of(name: &str) -> Option<Self> {
        RIGHTS.iter().find(|(_, known, _)| *known == name).map(|(right, ..)| *right)
    }
}

/// A set of rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u64);

impl Rights {
    /// Every one.
    pub const ALL: Self = Self((1 << RIGHTS.len()) - 1);

    /// These.
    pub const fn these(rights: &[Right]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < rights.len() {
            set |= 1 << rights[at] as u8;
            at += 1;
        }
        Self(set)
    }

    /// By their names.
    ///
    /// # Errors
    /// The first that is none.
    pub fn of<'n>(names: impl IntoIterator<Item = &'n str>) -> Result<Self, &'n str> {
        names
            .into_iter()
            .try_fold(Self::default(), |set, name| Ok(Self(set.0 | Self::these(&[Right::of(name).ok_or(name)?]).0)))
    }

    /// Whether this one is among them.
    pub const fn has(self, right: Right) -> bool {
        self.0 >> (right as u8) & 1 == 1
    }

    /// Whether all of these are among them.
    pub const fn contain(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those that both have.
    #[must_use]
    pub const fn both(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        RIGHTS.iter().filter(move |(right, ..)| self.has(*right)).map(|(_, name, _)| *name)
    }
}

/// Roles that are always there.
pub const BUILT_IN: &[(&str, Rights)] = &[
    ("admin", Rights::ALL),
    (
        "operator",
        Rights::these(&[
            Right::JobsReadAny,
            Right::JobsCancelAny,
            Right::AppsReadAny,
            Right::ClusterRead,
            Right::WorkersDrain,
            Right::MembersChange,
            Right::WorkersScale,
        ]),
    ),
    ("reader", Rights::these(&[Right::JobsReadAny, Right::DataReadAny, Right::AppsReadAny, Right::ClusterRead])),
    (
        "user",
        Rights::these(&[
            Right::JobsSubmit,
            Right::JobsRead,
            Right::JobsCancel,
            Right::DataRead,
            Right::DataWrite,
            Right::AppsRead,
            Right::AppsPush,
            Right::ClusterRead,
            Right::TokensCreate,
        ]),
    ),
];

/// The rights of a role that is built in.
pub fn built_in(role: &str) -> Option<Rights> {
    BUILT_IN.iter().find(|(name, _)| *name == role).map(|(_, rights)| *rights)
}

/// Who is called so without having logged in, where no login is needed.
pub const ANONYMOUS: &str = "anonymous";
/// Who is called so in commands of the cluster itself.
pub const SYSTEM: &str = "system";
/// What users may read beside their own files.
pub const SHARED: &str = "shared/";

/// Somebody who is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub name: Arc<str>,
    /// The user's role, or of a machine's token that one; empty: none.
    pub role: Arc<str>,
    /// What may be done.
    pub rights: Rights,
    /// 0 where no login is needed, and of a service account.
    pub session: u64,
    /// The service account whose token was shown, as NAMESPACE/NAME; empty: none was.
    pub account: Arc<str>,
    /// Names of files that begin so are the user's; empty: all.
    pub prefix: Arc<str>,
    /// The password must be changed before anything else.
    pub must_change: bool,
    /// When the token that was shown expires, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Where the call comes from, for the audit log.
    pub from: Arc<str>,
}

impl Principal {
    /// Everybody, where no login is needed.
    pub fn anonymous() -> Self {
        Self::with(ANONYMOUS, "admin", Rights::ALL)
    }

    /// The cluster itself.
    pub fn system() -> Self {
        Self::with(SYSTEM, "", Rights::ALL)
    }

    /// Of this name and these rights, without a session or files of one's own: for tests, and where no login is needed.
    pub fn with(name: &str, role: &str, rights: Rights) -> Self {
        let (name, role, none) = (name.into(), role.into(), Arc::<str>::from(""));
        let (account, prefix, from) = (none.clone(), none.clone(), none);
        Self { name, role, rights, session: 0, account, prefix, must_change: false, expires_ms: u64::MAX, from }
    }

    /// Whether it came with the token of a service account.
    pub fn is_account(&self) -> bool {
        !self.account.is_empty()
    }

    /// Whether what `owner` has may be seen or changed, with this right on one's own and that one on everybody's.
    pub fn may(&self, own: Right, any: Right, owner: &str) -> bool {
        self.rights.has(any) || (self.rights.has(own) && *self.name == *owner)
    }

    /// Whether a file of this name, or all that begin with it, may be read.
    pub fn may_read(&self, name: &str) -> bool {
        let own = self.rights.has(Right::DataRead) && (self.owns(name) || below(SHARED, name));
        own || self.rights.has(Right::DataReadAny)
    }

    /// Whether a file of this name, or all that begin with it, may be stored or removed.
    pub fn may_write(&self, name: &str) -> bool {
        (self.rights.has(Right::DataWrite) && self.owns(name)) || self.rights.has(Right::DataWriteAny)
    }

    fn owns(&self, name: &str) -> bool {
        !self.prefix.is_empty() && below(&self.prefix, name)
    }
}

/// Whether a name begins so, and does not lead out of there again.
fn below(prefix: &str, name: &str) -> bool {
    name.starts_with(prefix) && !name.split('/').any(|part| matches!(part, "." | ".."))
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Caller {
    /// It is not known.
    #[default]
    Nobody,
    /// A node of the cluster.
    Node {
        /// It is a master.
        master: bool,
        /// It is a worker.
        worker: bool,
    },
    /// A user.
    User(Principal),
}

/// What a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: whoever can reach a master.
    Nothing,
    /// A token that holds.
    Token,
    /// This right.
    Right(Right),
    /// The first right for what is one's own, the second for what is anybody's. What it is about is looked at where it is
    /// known.
    Own(Right, Right),
    /// A token that holds for what is one's own, the right for what is anybody's.
    Self_(Right),
    /// To be a master.
    Master,
    /// To be a worker.
    Worker,
    /// To be one of both.
    Node,
    /// To be a master, or the right.
    MasterOr(Right),
}

/// Why a call is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// Nobody knows who asks.
    Unknown,
    /// The password must be changed first.
    Password,
    /// It takes this right; for what is another's the second one, if there is one.
    Right(Right, Option<Right>),
    /// It is for nodes alone: these.
    Nodes {
        /// For masters.
        masters: bool,
        /// For workers.
        workers: bool,
    },
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it is not known who asks"),
            Self::Password => f.write_str("the password must be changed first"),
            Self::Right(right, None) => write!(f, "it takes the right {}", right.name()),
            Self::Right(own, Some(any)) => write!(f, "it takes the right {}, or {}", own.name(), any.name()),
            Self::Nodes { masters: true, workers: false } => f.write_str("this is answered to masters alone"),
            Self::Nodes { masters: false, .. } => f.write_str("this is answered to workers alone"),
            Self::Nodes { .. } => f.write_str("this is answered to masters and workers alone"),
        }
    }
}

/// Decides whether a call that needs this is answered. Denies what it does not know.
///
/// # Errors
/// Why not.
pub fn decide(caller: &Caller, needs: Needs) -> Result<(), Denial> {
    let rights = |wanted: &[Right]| match caller {
        Caller::User(principal) if wanted.iter().any(|right| principal.rights.has(*right)) => Ok(()),
        Caller::User(principal) if principal.must_change => Err(Denial::Password),
        Caller::User(_) => Err(Denial::Right(wanted[0], wanted.get(1).copied())),
        Caller::Node { .. } | Caller::Nobody => Err(Denial::Unknown),
    };
    let node = |masters: bool, workers: bool| match caller {
        Caller::Node { master, worker } if (*master && masters) || (*worker && workers) => Ok(()),
        _ => Err(Denial::Nodes { masters, workers }),
    };
    match needs {
        Needs::Nothing => Ok(()),
        Needs::Token | Needs::Self_(_) if matches!(caller, Caller::User(_)) => Ok(()),
        Needs::Token | Needs::Self_(_) => Err(Denial::Unknown),
        Needs::Right(right) => rights(&[right]),
        Needs::Own(own, any) => rights(&[own, any]),
        Needs::Master => node(true, false),
        Needs::Worker => node(false, true),
        Needs::Node => node(true, true),
        Needs::MasterOr(right) => node(true, false).or_else(|_| rights(&[right])),
    }
}
