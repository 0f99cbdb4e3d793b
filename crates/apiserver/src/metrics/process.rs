//! What the operating system counts of this process, as Prometheus' client libraries tell it.

use std::fs;

/// Figures of `/proc`; nothing where there is none.
pub struct Process {
    pub cpu_seconds: f64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    pub open_files: u64,
    pub most_files: u64,
    pub start_seconds: f64,
    pub threads: u64,
}

/// Linux counts time in hundredths of a second towards user space on every architecture it runs on
/// today.
const TICKS: f64 = 100.0;

pub fn read() -> Option<Process> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses, whatever it contains.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max open files"));
    let files = files.and_then(|l| l.split_whitespace().next()?.parse().ok());
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|l| l.strip_prefix("btime "));
    let boot: f64 = boot.and_then(|l| l.trim().parse().ok()).unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let resident: u64 = resident
        .and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    Some(Process {
        cpu_seconds: (number(11)? + number(12)?) as f64 / TICKS,
        resident_bytes: resident * 1024,
        virtual_bytes: number(20)?,
        open_files: fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64),
        most_files: files.unwrap_or_default(),
        start_seconds: boot + number(19)? as f64 / TICKS,
        threads: number(17)?,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_has_figures() {
        let process = super::read().expect("Linux");
        assert!(process.resident_bytes > 1 << 20 && process.virtual_bytes > process.resident_bytes);
        assert!(process.open_files > 2 && process.most_files >= process.open_files);
        assert!(process.threads >= 1 && process.start_seconds > 1e9);
    }
}
