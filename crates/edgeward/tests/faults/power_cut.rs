//! A power cut directly after a backup or a restore takes nothing of it.

use std::fs;

use edgeward::backup::{create, restore};

use crate::{
    mount::{self, Mount},
    support::{NOW, backed_up, deploy, functions},
};

const DISK_MIB: u64 = 16;

#[test]
fn what_was_backed_up_or_restored_is_there_after_a_power_cut() {
    if !mount::is_allowed() {
        return;
    }
    let place = tempfile::tempdir().expect("temp folder");
    let (data, whole) = backed_up(place.path());
    for replace in [false, true] {
        let mut disk = Mount::image(DISK_MIB);
        let (restored, backup) = (disk.folder().join("deep/er/data"), disk.folder().join("down/backup"));
        if replace {
            deploy(&restored, "old");
        }
        create(&data, &backup, NOW, |_| {}).expect("backs up");
        restore(&whole, &restored, replace, NOW, |_| {}).expect("restores");
        disk.cut_power();
        disk.mount_again();
        assert_eq!(functions(&restored), ["a"]);
        let again = place.path().join("again");
        restore(&backup, &again, false, NOW, |_| {}).expect("the backup is whole");
        assert_eq!(functions(&again), ["a"]);
        fs::remove_dir_all(again).expect("there");
    }
}
