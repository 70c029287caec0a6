//! Where a process listens: what other machines can reach demands TLS, and an API there a token.
//!
//! There is no option to do without: an open port that deploys code is a remote shell.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use edgeward::{
    EdgeError,
    access::Tokens,
    listener::{Listener, Tls, TlsFiles, is_loopback},
};
use jiff::Timestamp;
use tokio::net::TcpListener;

use crate::exit::Hinted;

// No doc comment: it would become the description of each command that takes the options.
#[derive(Debug, clap::Args)]
pub(crate) struct TlsArgs {
    /// Certificate chain, as PEM, that is shown at addresses that other machines can reach
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// An address to listen at, and the option that gave it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub(crate) option: &'static str,
    pub(crate) at: SocketAddr,
}

impl TlsArgs {
    /// The certificate, where an address needs one. What would be open to others is refused before anything is touched.
    pub(crate) fn open(self, addresses: &[Address]) -> anyhow::Result<Option<Arc<Tls>>> {
        let exposed = addresses.iter().find(|address| !is_loopback(address.at));
        match (self.tls_cert.zip(self.tls_key), exposed) {
            (Some((certificate, key)), Some(_)) => Ok(Some(Tls::open(TlsFiles { certificate, key })?)),
            (None, None) => Ok(None),
            (None, Some(Address { option, at })) => {
                let why = format!("{option} {at} is refused: other machines can reach it, and there is no certificate");
                let hint = "give `--tls-cert FILE` and `--tls-key FILE`, or listen at 127.0.0.1 or [::1]";
                Err(Hinted::new(EdgeError::invalid(why), hint).into())
            }
            (Some(_), None) => {
                let why = "--tls-cert has no use: only this machine can reach the addresses, where nothing is encrypted";
                Err(EdgeError::invalid(why).into())
            }
        }
    }
}

/// Refuses an API that other machines can reach and that nobody may call.
pub(crate) fn check_tokens(api: Address, tokens: &Tokens, data_dir: &Path) -> anyhow::Result<()> {
    if is_loopback(api.at) || tokens.any_is_valid(Timestamp::now()) {
        return Ok(());
    }
    let Address { option, at } = api;
    let why = format!("{option} {at} is refused: other machines can reach it, and there is no token that lets one of them in");
    let hint = format!("make the first one: edgeward token create NAME --role admin --data-dir {}", data_dir.display());
    Err(Hinted::new(EdgeError::invalid(why), hint).into())
}

/// Listens: with TLS where other machines can reach it.
pub(crate) async fn bind(address: Address, tls: Option<&Arc<Tls>>) -> anyhow::Result<Listener> {
    let Address { option, at } = address;
    let listener = TcpListener::bind(at).await.with_context(|| {
        format!("failed to listen on {at}: another program may use it, perhaps another node; choose another address with {option}")
    })?;
    Ok(Listener::new(listener, tls.filter(|_| !is_loopback(at)).cloned())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(at: &str) -> Address {
        Address { option: "--listen", at: at.parse().expect("valid") }
    }

    #[test]
    fn what_others_can_reach_is_refused_without_a_certificate() {
        let open = |files: bool, at: &[&str]| {
            let file = || files.then(|| PathBuf::from("/nonexistent"));
            let addresses: Vec<_> = at.iter().map(|at| address(at)).collect();
            TlsArgs { tls_cert: file(), tls_key: file() }.open(&addresses).map(|tls| tls.is_some()).map_err(|error| error.to_string())
        };
        assert_eq!(open(false, &["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"]), Ok(false));
        for exposed in ["0.0.0.0:1", "[::]:1", "192.168.1.2:1"] {
            let refused = open(false, &["127.0.0.1:1", exposed]).expect_err(exposed);
            assert!(refused.contains(&format!("--listen {exposed} is refused")), "{refused}");
            assert!(open(true, &[exposed]).expect_err("no file").contains("/nonexistent"));
        }
        assert!(open(true, &["127.0.0.1:1"]).expect_err("of no use").contains("no use"));
    }
}
