//! Load by `wrk`: requests a second. A run with an answer that is no success, or a broken connection, is no result.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::bench::artifacts::Artifacts;
use crate::process::output;

pub(crate) struct Load<'a> {
    pub(crate) connections: u32,
    pub(crate) duration: Duration,
    /// Lua that `wrk` runs, when requests are not a plain GET.
    pub(crate) script: Option<&'a Path>,
}

impl Load<'_> {
    /// Requests a second that this server answers.
    pub(crate) fn put(&self, artifacts: &Artifacts<'_>, address: SocketAddr, path: &str) -> Result<f64> {
        let mut command = Command::new(&artifacts.wrk);
        let threads = self.connections.min(2);
        command.arg(format!("-t{threads}")).arg(format!("-c{}", self.connections)).arg(format!("-d{}", self.duration.as_secs()));
        if let Some(script) = self.script {
            command.arg("-s").arg(script);
        }
        read(&output(command.arg(format!("http://{address}{path}")))?)
    }
}

fn read(report: &str) -> Result<f64> {
    if let Some(line) = report.lines().map(str::trim).find(|line| line.starts_with("Non-2xx") || line.starts_with("Socket errors")) {
        bail!("failed to measure: under load there were errors ({line})");
    }
    let rate = report.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:")?.trim().parse().ok());
    rate.with_context(|| format!("failed to read what `wrk` reports:\n{report}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_the_report() {
        assert!((read("  2 threads\nRequests/sec:  10846.44\nTransfer/sec: 1MB\n").unwrap() - 10_846.44).abs() < 1e-9);
    }

    #[test]
    fn a_run_with_errors_is_no_result() {
        let error = read("  Non-2xx or 3xx responses: 7\nRequests/sec:  9.0\n").unwrap_err();
        assert!(error.to_string().contains("responses: 7"), "{error}");
    }
}
