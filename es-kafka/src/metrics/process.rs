//! What the system tells of this process.

/// The memory that the process holds, in bytes; `None` where `/proc` does not tell.
pub(super) fn resident_bytes() -> Option<u64> {
    resident_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The line `VmRSS:     1234 kB` of Linux' status file (proc_pid_status(5)).
fn resident_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resident_size_is_read_in_bytes() {
        assert_eq!(resident_in("VmHWM:\t  900 kB\nVmRSS:\t    12 kB\nRssAnon:\t 3 kB\n"), Some(12 * 1024));
        assert_eq!(resident_in("Name:\tbank\n"), None);
    }
}
