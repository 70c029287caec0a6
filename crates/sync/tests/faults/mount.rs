//! File systems of a test's own, in a mount namespace of its thread: they are gone when it ends, even by a kill.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    ioctl::{Setter, ioctl},
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    thread::{UnshareFlags, unshare_unsafe},
};
use tempfile::TempDir;

/// `FS_IOC_SHUTDOWN` of Linux, and its way that writes nothing more, not even the journal.
const SHUTDOWN: u32 = 0x8004_587d;
const NO_LOG_FLUSH: u32 = 2;
const DEADLINE: Duration = Duration::from_secs(10);

/// A mounted file system in a folder of its own.
pub(crate) struct Mount {
    /// Dropped last: an image may lie in it.
    place: TempDir,
}

/// Whether this user may mount; the mounts of this thread are then seen by it and its children only. When not, says why
/// the test proves nothing.
pub(crate) fn is_allowed() -> bool {
    let root = rustix::process::geteuid().is_root();
    if root {
        #[expect(unsafe_code, reason = "rustix has no safe function for it")]
        // SAFETY: of what a thread shares with others, only files that are open matter for safety; they stay shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace");
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).expect("private mounts");
    } else {
        eprintln!("not tested: mounting a file system for this test needs root");
    }
    root
}

impl Mount {
    /// A disk in memory, of this many KiB.
    pub(crate) fn small(kib: u32) -> Self {
        let mount = Self::unmounted();
        done(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "edgeward-test"]).arg(mount.folder()));
        mount
    }

    /// A disk in a file, with an ext4 of this many MiB.
    pub(crate) fn image(mib: u64) -> Self {
        let mount = Self::unmounted();
        File::create(mount.place.path().join("image")).and_then(|file| file.set_len(mib << 20)).expect("an empty image");
        done(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(mount.place.path().join("image")));
        mount.mount_image();
        mount
    }

    /// Drops all that was not synced; from now on every write fails.
    pub(crate) fn cut_power(&self) {
        let folder = File::open(self.folder()).expect("mounted");
        #[expect(unsafe_code, reason = "no safe function shuts a file system down")]
        // SAFETY: this call reads one number of 32 bits, which outlives it.
        let done = unsafe { ioctl(&folder, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
        done.expect("ext4 shuts down");
    }

    /// Unmounts and mounts what the image holds. Nobody may have a file open there.
    pub(crate) fn mount_again(&mut self) {
        let started = Instant::now();
        // A process that was killed may still be ending.
        while let Err(error) = unmount(self.folder(), UnmountFlags::empty()) {
            assert!(started.elapsed() < DEADLINE, "failed to unmount: {error}");
            thread::sleep(Duration::from_millis(5));
        }
        self.mount_image();
    }

    fn mount_image(&self) {
        done(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(self.place.path().join("image")).arg(self.folder()));
    }

    fn unmounted() -> Self {
        let place = tempfile::tempdir().expect("temp folder");
        fs::create_dir(place.path().join("mount")).expect("made");
        Self { place }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.place.path().join("mount")
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Detached: after a failed test something may still have a file open. Not mounted is fine too.
        let _ = unmount(self.folder(), UnmountFlags::DETACH);
    }
}

fn done(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("`cargo xtask setup` installs {command:?}, which did not start: {error}"));
    assert!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
}
