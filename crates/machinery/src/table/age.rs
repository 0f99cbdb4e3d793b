//! Ages and durations as `kubectl get` prints them: `5m3s`, `3h`, `12d`.

use jiff::Timestamp;

/// Time since an event, `<unknown>` where none is known is the caller's.
pub fn age(at: Timestamp, now: Timestamp) -> String {
    human_duration(now.as_second() - at.as_second())
}

/// Seconds in at most two units, finer the shorter the time.
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    if seconds < 0 {
        return "0s".into();
    }
    let two = |a: i64, unit: &str, b: i64, fine: &str| {
        if b == 0 {
            format!("{a}{unit}")
        } else {
            format!("{a}{unit}{b}{fine}")
        }
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, "d", hours % 24, "h"),
        _ if days < 365 * 2 => format!("{days}d"),
        _ if days < 365 * 8 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finer_the_shorter() {
        let hour = 3600;
        for (seconds, text) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (303, "5m3s"),
            (600, "10m"),
            (179 * 60 + 59, "179m"),
            (3 * hour, "3h"),
            (3 * hour + 300, "3h5m"),
            (8 * hour, "8h"),
            (47 * hour, "47h"),
            (49 * hour, "2d1h"),
            (8 * 24 * hour, "8d"),
            (800 * 24 * hour, "2y70d"),
            (9 * 365 * 24 * hour, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
