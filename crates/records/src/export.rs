//! Records for other programs: JSON lines and CSV.

use crate::record::Record;

/// The header of [`csv_line`]s.
pub const CSV_HEADER: &str = "id,at,user,groups,via,verb,kind,namespace,name,group,why,outcome,message,started,finished,duration_ms,before,after\r\n";

/// A record as one line of JSON.
///
/// # Errors
/// None in practice: every part of a record has a form in JSON.
pub fn json_line(record: &Record) -> Result<String, serde_json::Error> {
    serde_json::to_string(record).map(|line| line + "\n")
}

/// A record as one line of CSV (RFC 4180). Cells that a spreadsheet would take for a formula are written with
/// an apostrophe before them.
pub fn csv_line(record: &Record) -> String {
    let time = |at: Option<jiff::Timestamp>| at.map(|t| t.to_string()).unwrap_or_default();
    let json =
        |v: &Option<serde_json::Value>| v.as_ref().map(|v| v.to_string()).unwrap_or_default();
    let cells = [
        record.id.clone(),
        record.at.to_string(),
        record.who.user.clone(),
        record.who.groups.join(" "),
        record.who.via.to_string(),
        record.verb.to_string(),
        record.object.kind.clone(),
        record.object.namespace.clone(),
        record.object.name.clone(),
        record.object.group.clone(),
        record.why.clone(),
        record.outcome.to_string(),
        record.message.clone(),
        time(record.started),
        time(record.finished),
        record
            .duration_ms()
            .map(|ms| ms.to_string())
            .unwrap_or_default(),
        json(&record.before),
        json(&record.after),
    ];
    cells.map(|c| cell(&c)).join(",") + "\r\n"
}

fn cell(text: &str) -> String {
    // Some programs skip blanks (and look at full-width signs) before they decide.
    let sign = text.trim_start_matches([' ', '\u{a0}']).chars().next();
    let formula = sign.is_some_and(|c| "=+-@\t\r\n|%＝＋－＠".contains(c));
    let guard = if formula { "'" } else { "" };
    if formula || text.contains([',', '"', '\r', '\n', ' ', ';']) {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Object, Outcome, Verb, Via, Who};

    #[test]
    fn cells_are_quoted_and_formulas_disarmed() {
        for (text, want) in [
            ("plain", "plain"),
            ("", ""),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("two\nlines", "\"two\nlines\""),
            (
                "=HYPERLINK(\"http://x\")",
                "\"'=HYPERLINK(\"\"http://x\"\")\"",
            ),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("  =1", "\"'  =1\""),
            ("\t=1", "\"'\t=1\""),
        ] {
            assert_eq!(cell(text), want, "{text:?}");
        }
    }

    #[test]
    fn a_line_has_as_many_cells_as_the_header() {
        let record = Record {
            id: "i".into(),
            at: jiff::Timestamp::UNIX_EPOCH,
            who: Who {
                user: "alice".into(),
                groups: vec!["a".into(), "b".into()],
                via: Via::Cli,
            },
            verb: Verb::Scale,
            object: Object {
                kind: "Group".into(),
                name: "cart".into(),
                ..Object::default()
            },
            why: String::new(),
            before: Some(serde_json::json!({"replicas": 3})),
            after: None,
            outcome: Outcome::Done,
            message: String::new(),
            started: None,
            finished: None,
        };
        let line = csv_line(&record);
        assert_eq!(
            line,
            "i,1970-01-01T00:00:00Z,alice,\"a b\",cli,scale,Group,,cart,,,done,,,,,\"{\"\"replicas\"\":3}\",\r\n"
        );
        assert_eq!(line.matches(',').count(), CSV_HEADER.matches(',').count());
        let read: Record = serde_json::from_str(&json_line(&record).unwrap()).unwrap();
        assert_eq!(read, record);
    }
}
