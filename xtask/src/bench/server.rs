//! Servers under measurement: started on a free port of this machine, ended when dropped.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::bench::artifacts::Artifacts;
use crate::bench::client::{self, Connection};
use crate::process::output;

/// Longest wait for a server to answer: the first start of one may compile.
const START_TIMEOUT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(2);

pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    /// What it said, kept while it runs.
    _scratch: TempDir,
}

impl Server {
    /// Starts a program that serves at `address`, and waits until it is ready.
    fn start(command: &mut Command, address: SocketAddr, is_ready: impl Fn() -> bool) -> Result<Self> {
        let scratch = tempfile::tempdir()?;
        let log = scratch.path().join("log");
        let program = command.get_program().to_owned();
        let name = Path::new(&program).file_name().unwrap_or(&program).to_string_lossy().into_owned();
        let process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("failed to start `{name}`"))?;
        let mut server = Self { process, address, _scratch: scratch };
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready() {
            let ended = server.process.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                bail!("failed to start `{name}`: it does not answer\n{}", fs::read_to_string(&log)?.trim_end());
            }
            sleep(POLL);
        }
        Ok(server)
    }

    pub(crate) fn wasmtime<A: AsRef<OsStr>>(artifacts: &Artifacts<'_>, component: &Path, options: &[A]) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(&artifacts.wasmtime);
        command.arg("serve").args(["--addr", &address.to_string()]).args(options).arg(component);
        // It compiles first, and listens after.
        Self::start(&mut command, address, || Connection::open(address).is_ok())
    }

    /// A program that takes the address as its argument.
    pub(crate) fn example(program: &Path) -> Result<Self> {
        let address = free_address()?;
        Self::start(Command::new(program).arg(address.to_string()), address, || Connection::open(address).is_ok())
    }

    /// A program that listens at `address` when it is ready.
    pub(crate) fn listening(command: &mut Command, address: SocketAddr) -> Result<Self> {
        Self::start(command, address, || Connection::open(address).is_ok())
    }

    /// Has it do nothing more, until it is killed.
    pub(crate) fn stand_still(&self) -> Result<()> {
        output(Command::new("kill").args(["-STOP", &self.process.id().to_string()])).map(drop)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Memory of the process that is in RAM.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        self.status_bytes("VmRSS")
    }

    /// The most of it that there has been.
    pub(crate) fn resident_bytes_most(&self) -> Result<u64> {
        self.status_bytes("VmHWM")
    }

    fn status_bytes(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).context("failed to read the memory of a server")?;
        status_bytes(&status, field).with_context(|| format!("failed to find {field} in the status of a server"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; what it kept lies in a folder that goes too.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `edgeward up` on a data folder.
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) functions: SocketAddr,
    edgeward: PathBuf,
}

impl Node {
    pub(crate) fn start(artifacts: &Artifacts<'_>, data: &Path) -> Result<Self> {
        Self::start_with(artifacts, data, &[])
    }

    /// With more options of `edgeward up`.
    pub(crate) fn start_with(artifacts: &Artifacts<'_>, data: &Path, options: &[&str]) -> Result<Self> {
        let (address, functions) = (free_address()?, free_address()?);
        let mut command = Command::new(artifacts.edgeward()?);
        command.args(["up", "--id", "bench", "--listen", &address.to_string(), "--functions-listen", &functions.to_string()]);
        command.args(options);
        let server = Server::start(command.arg("--data-dir").arg(data), address, || client::get(address, "/readyz").is_ok())?;
        Ok(Self { server, functions, edgeward: artifacts.edgeward()?.to_owned() })
    }

    /// Deploys as a user does.
    pub(crate) fn deploy(&self, component: &Path, id: &str, options: &[&str]) -> Result<()> {
        let component = component.display().to_string();
        self.does(&[&["deploy", "--id", id], options, &[&component]].concat()).map(drop)
    }

    /// Runs a command against it.
    pub(crate) fn does(&self, arguments: &[&str]) -> Result<String> {
        does(&self.edgeward, &self.server, arguments)
    }

    /// A connection to the API.
    pub(crate) fn connect(&self) -> Result<Connection> {
        Connection::open(self.server.address)
    }
}

/// A member of a fleet as a process: a hub, or a node that joined.
pub(crate) struct Member {
    pub(crate) server: Server,
}

impl Member {
    pub(crate) fn hub(artifacts: &Artifacts<'_>, data: &Path, options: &[&str]) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(artifacts.edgeward()?);
        command.args(["hub", "--id", "bench-hub", "--broker-listen", "127.0.0.1:0", "--listen", &address.to_string(), "--nats-server"]);
        command.arg(&artifacts.nats_server).arg("--data-dir").arg(data).args(options);
        Ok(Self { server: Server::start(&mut command, address, || client::get(address, "/readyz").is_ok())? })
    }

    pub(crate) fn node(artifacts: &Artifacts<'_>, id: &str, data: &Path, hub: &Self, options: &[&str]) -> Result<Self> {
        let (address, functions) = (free_address()?, free_address()?);
        let server = format!("http://{}", hub.server.address);
        let token = output(Command::new(artifacts.edgeward()?).args(["--server", &server, "join-token"]))?;
        let mut command = Command::new(artifacts.edgeward()?);
        command.args(["node", "--id", id, "--listen", &address.to_string(), "--functions-listen", &functions.to_string()]);
        command.args(["--join", token.trim(), "--data-dir"]).arg(data).args(options);
        Ok(Self { server: Server::start(&mut command, address, || client::get(address, "/readyz").is_ok())? })
    }

    /// Runs a command against it.
    pub(crate) fn does(&self, artifacts: &Artifacts<'_>, arguments: &[&str]) -> Result<String> {
        does(artifacts.edgeward()?, &self.server, arguments)
    }
}

fn does(edgeward: &Path, server: &Server, arguments: &[&str]) -> Result<String> {
    output(Command::new(edgeward).args(["--server", &format!("http://{}", server.address)]).args(arguments))
}

pub(crate) fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("failed to find a free port")?;
    Ok(listener.local_addr()?)
}

fn status_bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_read_from_the_status_of_a_process() {
        let status = "Name:\tx\nVmHWM:\t  12 kB\nVmRSS:\t  9584 kB\n";
        assert_eq!((status_bytes(status, "VmRSS"), status_bytes(status, "VmHWM")), (Some(9584 * 1024), Some(12 * 1024)));
        assert_eq!(status_bytes("Name:\tx\n", "VmRSS"), None);
    }
}
