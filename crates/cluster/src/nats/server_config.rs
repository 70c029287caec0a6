//! The configuration of a NATS server that the hub runs: TLS, credentials for everybody, and a disk that is written before it answers.

use std::{net::SocketAddr, path::Path};

use edgeward_model::EdgeError;
use jiff::Timestamp;

use crate::nats::authority::{Authority, Revoked};

/// What a server needs to know.
#[derive(Debug)]
pub struct ServerConfig<'a> {
    /// Names the server among others.
    pub name: &'a str,
    /// Where it listens. Port 0 is any that is free.
    pub listen: SocketAddr,
    /// Where it keeps its data.
    pub data: &'a Path,
    /// Files of its certificate with the authority's, and of its key, both PEM.
    pub tls: (&'a Path, &'a Path),
}

impl ServerConfig<'_> {
    /// The text of its configuration file. It holds no secret.
    pub fn text(&self, authority: &Authority, revoked: &Revoked, now: Timestamp) -> Result<String, EdgeError> {
        let (ip, port) = (self.listen.ip(), if self.listen.port() == 0 { -1 } else { i32::from(self.listen.port()) });
        let (certificate, key) = self.tls;
        let (account, system) = (authority.account_key(), authority.system_key());
        let lines = [
            format!("server_name: {}", quoted(self.name)),
            format!("host: {}", quoted(&ip.to_string())),
            format!("port: {port}"),
            // Who went silent is noticed before another takes its lease: requests go to any of those who serve a subject. Members say something
            // more often than this, so that nobody is asked whether it is there.
            "ping_interval: \"2s\"".to_owned(),
            "ping_max: 2".to_owned(),
            format!("tls {{ cert_file: {}, key_file: {}, timeout: 5 }}", quoted_path(certificate), quoted_path(key)),
            // By default it writes to the disk every two minutes.
            format!("jetstream {{ store_dir: {}, sync_interval: always }}", quoted_path(&self.data.join("jetstream"))),
            format!("operator: {}", authority.operator_token(now)?),
            format!("system_account: {system}"),
            format!("resolver {{ type: full, dir: {}, allow_delete: false, interval: \"2m\" }}", quoted_path(&self.data.join("accounts"))),
            "resolver_preload {".to_owned(),
            format!("  {account}: {}", authority.account_token(revoked, now)?),
            format!("  {system}: {}", authority.system_token(now)?),
            "}".to_owned(),
        ];
        Ok(lines.map(|line| line + "\n").concat())
    }
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// As a string of JSON, which is one here too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
