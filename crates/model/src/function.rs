//! A function that can be deployed to edge nodes, and how it is limited.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::EdgeError,
    grant::DocumentGrant,
    id::{Digest, FunctionId, HandlerName},
    limits::{
        ALLOWED_HOST_BYTES_MAX, ALLOWED_HOSTS_MAX, CONCURRENCY_DEFAULT, CONCURRENCY_MAX, DOCUMENT_GRANTS_MAX, ENVIRONMENT_BYTES_MAX,
        ENVIRONMENT_VARS_MAX, MEMORY_MB_DEFAULT, MEMORY_MB_MAX, QUEUE_DEFAULT, QUEUE_MAX, REUSE_MAX, TIMEOUT_SECONDS_DEFAULT,
        TIMEOUT_SECONDS_MAX, TIMEOUT_SECONDS_MIN,
    },
    node::check_text,
    resilience::Resilience,
    signature::ArtifactSignature,
};

/// What runs when a function is invoked: a reference, never the code itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handler {
    /// A WebAssembly component, named by its digest.
    Artifact(Digest),
    /// Native code registered in the process under this name.
    Native(HandlerName),
}

impl Handler {
    /// The artifact that it names; native code names none.
    pub fn artifact(&self) -> Option<Digest> {
        match self {
            Self::Artifact(digest) => Some(*digest),
            Self::Native(_) => None,
        }
    }
}

impl fmt::Display for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Artifact(digest) => digest.fmt(f),
            Self::Native(name) => write!(f, "native:{name}"),
        }
    }
}

/// Environment variables of a function. Debug output shows the names only: values may be secrets.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Environment(pub BTreeMap<String, String>);

impl Environment {
    /// The same names with every value replaced, for listings, logs and exports.
    #[must_use]
    pub fn redacted(&self) -> Self {
        Self(self.0.keys().map(|name| (name.clone(), "[redacted]".to_owned())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// A function deployable to edge nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdgeFunction {
    /// Names the function; deploying the same id again replaces it.
    pub id: FunctionId,
    /// For people.
    pub name: String,
    /// What runs.
    pub handler: Handler,
    /// Memory of one invocation over all its linear memories and tables, in MiB. Not enforced for native
    /// handlers, which share the process.
    #[serde(default = "default_memory_mb")]
    pub memory_mb: u32,
    /// Deadline over the whole response, in seconds; fractions are allowed.
    #[serde(default = "default_timeout_seconds")]
    pub timeout_seconds: f64,
    /// Environment variables, which the guest also sees as `wasi:config`.
    #[serde(default)]
    pub environment: Environment,
    /// Hosts that the function may call, as `scheme://host[:port]` patterns; none means none.
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    /// Documents that the function may see, as buckets of `wasi:keyvalue`; none means none.
    #[serde(default)]
    pub documents: Vec<DocumentGrant>,
    /// Invocations that run at once; more wait.
    #[serde(default = "default_concurrency")]
    pub max_concurrency: u32,
    /// Invocations that wait; more are told "overloaded".
    #[serde(default = "default_queue")]
    pub max_queue: u32,
    /// Invocations that one instance serves, one after the other. 1 means a fresh sandbox each time.
    #[serde(default = "default_reuse")]
    pub max_reuse: u32,
    /// Who vouches for the artifact, for nodes that run no other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<ArtifactSignature>,
    /// How its calls find a node, and what is done when nodes fail.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resilience: Resilience,
}

fn is_default(resilience: &Resilience) -> bool {
    *resilience == Resilience::default()
}
fn default_memory_mb() -> u32 {
    MEMORY_MB_DEFAULT
}
fn default_timeout_seconds() -> f64 {
    TIMEOUT_SECONDS_DEFAULT
}
fn default_concurrency() -> u32 {
    CONCURRENCY_DEFAULT
}
fn default_queue() -> u32 {
    QUEUE_DEFAULT
}
fn default_reuse() -> u32 {
    1
}

impl EdgeFunction {
    /// A function with the specification's defaults: 128 MiB, 30 seconds, no environment.
    pub fn new(id: impl AsRef<str>, name: impl Into<String>, handler: Handler) -> Result<Self, EdgeError> {
        let function = Self {
            id: FunctionId::new(id)?,
            name: name.into(),
            handler,
            memory_mb: MEMORY_MB_DEFAULT,
            timeout_seconds: TIMEOUT_SECONDS_DEFAULT,
            environment: Environment::default(),
            allowed_hosts: Vec::new(),
            documents: Vec::new(),
            max_concurrency: CONCURRENCY_DEFAULT,
            max_queue: QUEUE_DEFAULT,
            max_reuse: 1,
            signature: None,
            resilience: Resilience::default(),
        };
        function.validate()?;
        Ok(function)
    }

    /// The deadline as a duration.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.timeout_seconds)
    }

    /// The memory limit in bytes.
    pub fn memory_bytes(&self) -> usize {
        usize::try_from(self.memory_mb).expect("32 bits fit in usize") << 20
    }

    /// Checks every field against its bound. The syntax of `allowed_hosts` is checked where it is used.
    pub fn validate(&self) -> Result<(), EdgeError> {
        let id = &self.id;
        check_text(&format!("name of function `{id}`"), &self.name)?;
        let whole = |what: &str, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(EdgeError::invalid(format!("{what} of function `{id}` is {value}; it must be from {low} to {high}")))
            }
        };
        whole("memory_mb", self.memory_mb, 1, MEMORY_MB_MAX)?;
        whole("max_concurrency", self.max_concurrency, 1, CONCURRENCY_MAX)?;
        whole("max_queue", self.max_queue, 0, QUEUE_MAX)?;
        whole("max_reuse", self.max_reuse, 1, REUSE_MAX)?;
        if !(TIMEOUT_SECONDS_MIN..=TIMEOUT_SECONDS_MAX).contains(&self.timeout_seconds) {
            return Err(EdgeError::invalid(format!(
                "timeout_seconds of function `{id}` is {}; it must be from {TIMEOUT_SECONDS_MIN} to {TIMEOUT_SECONDS_MAX}",
                self.timeout_seconds
            )));
        }
        if self.allowed_hosts.len() > ALLOWED_HOSTS_MAX {
            return Err(EdgeError::invalid(format!(
                "function `{id}` lists {} allowed hosts, the most is {ALLOWED_HOSTS_MAX}",
                self.allowed_hosts.len()
            )));
        }
        if let Some(host) = self.allowed_hosts.iter().find(|host| host.len() > ALLOWED_HOST_BYTES_MAX) {
            let bytes = host.len();
            return Err(EdgeError::invalid(format!(
                "an allowed host of function `{id}` is {bytes} bytes long, the most is {ALLOWED_HOST_BYTES_MAX}"
            )));
        }
        if self.signature.is_some() && self.handler.artifact().is_none() {
            return Err(EdgeError::invalid(format!("function `{id}` has a signature, and no artifact that it could be of; leave it out")));
        }
        self.resilience.validate()?;
        self.validate_documents()?;
        self.validate_environment()
    }

    fn validate_documents(&self) -> Result<(), EdgeError> {
        let id = &self.id;
        if self.documents.len() > DOCUMENT_GRANTS_MAX {
            let count = self.documents.len();
            return Err(EdgeError::invalid(format!("function `{id}` is granted {count} documents, the most is {DOCUMENT_GRANTS_MAX}")));
        }
        let mut names = HashSet::new();
        for grant in &self.documents {
            grant.validate()?;
            if !names.insert(&grant.document) {
                return Err(EdgeError::invalid(format!("function `{id}` is granted document `{}` twice", grant.document)));
            }
        }
        Ok(())
    }

    fn validate_environment(&self) -> Result<(), EdgeError> {
        let id = &self.id;
        let variables = &self.environment.0;
        let bytes: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        if variables.len() > ENVIRONMENT_VARS_MAX || bytes > ENVIRONMENT_BYTES_MAX {
            return Err(EdgeError::invalid(format!(
                "environment of function `{id}` has {} variables and {bytes} bytes, the most is {ENVIRONMENT_VARS_MAX} and {ENVIRONMENT_BYTES_MAX}",
                variables.len()
            )));
        }
        for (name, value) in variables {
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(EdgeError::invalid(format!(
                    "environment of function `{id}` has the name `{}`, which is empty or holds `=` or NUL",
                    name.escape_debug()
                )));
            }
            if value.contains('\0') {
                return Err(EdgeError::invalid(format!("environment variable `{name}` of function `{id}` holds a NUL")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::{PublicKey, SignatureBytes};

    fn function() -> EdgeFunction {
        EdgeFunction::new("fn-1", "process-image", Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid")
    }

    #[test]
    fn a_new_function_has_the_defaults_of_the_specification() {
        let function = function();
        assert_eq!((function.memory_mb, function.timeout()), (128, Duration::from_secs(30)));
        assert!(function.environment.0.is_empty());
        let read: EdgeFunction =
            serde_json::from_str(r#"{"id":"fn-1","name":"process-image","handler":{"native":"h"}}"#).expect("defaults fill");
        assert_eq!(read, function);
        assert!(function.documents.is_empty(), "a function of before there were grants sees no document");
    }

    #[test]
    fn a_value_out_of_range_is_refused_and_named() {
        let refused = |change: &dyn Fn(&mut EdgeFunction)| {
            let mut function = function();
            change(&mut function);
            function.validate().expect_err("out of range").to_string()
        };
        assert!(refused(&|f| f.memory_mb = 0).contains("memory_mb of function `fn-1` is 0"));
        assert!(refused(&|f| f.memory_mb = 4097).contains("4096"));
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY, 3601.0] {
            let mut function = function();
            function.timeout_seconds = seconds;
            assert!(function.validate().is_err(), "{seconds}");
        }
        let signature =
            ArtifactSignature { key: PublicKey::from_bytes([0; 32]), counter: 1, signature: SignatureBytes::from_bytes([0; 64]) };
        assert!(refused(&|f| f.signature = Some(signature)).contains("no artifact that it could be of"));
        assert!(
            refused(&|f| f.allowed_hosts = vec!["x".repeat(ALLOWED_HOST_BYTES_MAX + 1)]).contains("an allowed host of function `fn-1`")
        );
        let grant = |text: &str| text.parse::<DocumentGrant>().expect("valid");
        let grants = |texts: &[&str]| texts.iter().map(|text| grant(text)).collect::<Vec<_>>();
        assert!(refused(&|f| f.documents = grants(&["a", "a:ro"])).contains("`a` twice"));
        assert!(refused(&|f| f.documents = vec![grant("a"); DOCUMENT_GRANTS_MAX + 1]).contains("65 documents"));
        let reserved = r#"{"id":"f","name":"f","handler":{"native":"h"},"documents":[{"document":"edgeward.x","access":"read-only"}]}"#;
        let read: EdgeFunction = serde_json::from_str(reserved).expect("well formed");
        assert!(read.validate().expect_err("reserved").to_string().contains("`edgeward.x`"));
        assert!(refused(&|f| f.environment = [("A=B", "c")].into_iter().collect()).contains("A=B"));
        assert!(refused(&|f| f.environment = [("A", "c\0")].into_iter().collect()).contains("`A`"));
        assert!(refused(&|f| f.environment = [("A", "x".repeat(ENVIRONMENT_BYTES_MAX))].into_iter().collect()).contains("bytes"));
    }

    #[test]
    fn how_its_calls_are_routed_is_written_only_when_it_is_said() {
        let mut function = function();
        assert!(!serde_json::to_string(&function).expect("JSON").contains("resilience"));
        function.resilience.idempotent = true;
        function.resilience.deadline_seconds = Some(2.5);
        let json = serde_json::to_string(&function).expect("JSON");
        assert!(json.ends_with(r#""resilience":{"deadline_seconds":2.5,"idempotent":true}}"#), "{json}");
        assert_eq!(serde_json::from_str::<EdgeFunction>(&json).expect("its own JSON"), function);
        function.resilience.deadline_seconds = Some(0.0);
        assert!(function.validate().expect_err("out of range").to_string().contains("deadline_seconds"));
    }

    #[test]
    fn debug_output_never_shows_a_value_of_the_environment() {
        let mut function = function();
        function.environment = [("TOKEN", "s3cret")].into_iter().collect();
        let shown = format!("{function:?} {:?}", function.environment.redacted());
        assert!(shown.contains("TOKEN") && !shown.contains("s3cret"), "{shown}");
    }
}
