//! What this process takes of the machine, as Linux tells it.

use anyhow::Context;

use crate::failure::Result;

/// `/proc` counts processor time in hundredths of a second, on every architecture that Rust's
/// standard library runs on.
const TICKS_A_SECOND: f64 = 100.0;

/// Processor time of all threads so far, in seconds.
pub fn cpu_seconds() -> Result<f64> {
    let text = read("/proc/self/stat")?;
    let ticks = ticks(&text).with_context(|| "cannot read processor time of /proc/self/stat")?;
    Ok(ticks as f64 / TICKS_A_SECOND)
}

/// Fields 14 and 15 of the file, counted after the command's name, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(user + system)
}

/// Memory in MB: now, and the most there was.
pub fn memory_mb() -> Result<(u64, u64)> {
    let text = read("/proc/self/status")?;
    let both = field_kb(&text, "VmRSS").zip(field_kb(&text, "VmHWM"));
    let (now, most) = both.with_context(|| "cannot read memory of /proc/self/status")?;
    Ok((now * 1024 / 1_000_000, most * 1024 / 1_000_000))
}

fn field_kb(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn read(path: &str) -> Result<String> {
    Ok(std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 9 0 1 2 3";
        assert_eq!(ticks(stat), Some(200));
        assert_eq!(ticks("7 (a"), None);
    }

    #[test]
    fn memory_is_read_by_name() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(field_kb(status, "VmRSS"), Some(1024));
        assert_eq!(field_kb(status, "VmHWM"), Some(2048));
        assert_eq!(field_kb(status, "VmSwap"), None);
    }
}
