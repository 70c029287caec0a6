//! What the machine of a node has to do.

use std::path::Path;

use edgeward_model::Load;
use sysinfo::{MemoryRefreshKind, System};

/// Measures; the processors' load is that since the last time.
pub(super) struct Meter {
    /// None where the system cannot be asked: nothing is known of it then.
    system: Option<System>,
}

impl Meter {
    pub(super) fn new() -> Self {
        let mut system = System::new().inspect_err(|error| tracing::warn!(%error, "the load of this machine cannot be measured")).ok();
        system.iter_mut().for_each(System::refresh_cpu_usage);
        Self { system }
    }

    pub(super) fn measure(&mut self, data_dir: &Path, running: usize) -> Load {
        if let Some(system) = &mut self.system {
            system.refresh_cpu_usage();
            system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        }
        let system = self.system.as_ref();
        // Of a disk that cannot be asked nothing is known.
        let disk = rustix::fs::statvfs(data_dir).ok();
        let bytes = |blocks: u64| disk.as_ref().map_or(0, |disk| blocks.saturating_mul(disk.f_frsize));
        let (total, free) = disk.as_ref().map_or((0, 0), |disk| (disk.f_blocks, disk.f_bavail));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped, and float casts saturate")]
        let cpu_percent = system.map_or(0.0, System::global_cpu_usage).round().clamp(0.0, 100.0) as u8;
        Load {
            cpu_percent,
            memory_used_bytes: system.map_or(0, System::used_memory),
            memory_total_bytes: system.map_or(0, System::total_memory),
            disk_used_bytes: bytes(total.saturating_sub(free)),
            disk_total_bytes: bytes(total),
            running: running as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_memory_and_a_disk_and_uses_some_of_both() {
        let load = Meter::new().measure(Path::new("."), 3);
        assert!(load.cpu_percent <= 100 && load.running == 3);
        assert!((1..=load.memory_total_bytes).contains(&load.memory_used_bytes), "{load:?}");
        assert!((1..=load.disk_total_bytes).contains(&load.disk_used_bytes), "{load:?}");
    }
}
