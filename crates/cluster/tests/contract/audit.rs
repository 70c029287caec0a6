//! What the audit log of this process says. All tests write to one.

use std::{io, sync::LazyLock};

use parking_lot::Mutex;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::site::eventually;

/// All of it.
struct Log(Mutex<String>);

static LOG: LazyLock<&'static Log> = LazyLock::new(|| {
    let log: &'static Log = Box::leak(Box::new(Log(Mutex::default())));
    let filter = EnvFilter::new("audit=info");
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log).init();
    log
});

impl MakeWriter<'_> for &'static Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self
    }
}

impl io::Write for &'static Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Begins to keep it.
pub(crate) fn listen() {
    LazyLock::force(&LOG);
}

/// Waits for a line with all of these parts.
pub(crate) async fn says(parts: &[&str]) {
    let what = format!("the audit log says {parts:?}");
    eventually(&what, async || LOG.0.lock().lines().any(|line| parts.iter().all(|part| line.contains(part)))).await;
}
