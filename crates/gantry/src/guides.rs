//! What README and docs tell people to type is a command line that is understood.

use std::path::Path;

use clap::{Parser as _, error::ErrorKind};

use crate::cli::Cli;

/// A command line of a guide, where it stands, and whether it stands in running text: there it may be
/// the name of a command alone.
struct Line {
    place: String,
    words: Vec<String>,
    prose: bool,
}

/// Words as a shell splits them, up to a comment or a pipe.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (vec![], None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(q)) if c == q => quote = None,
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('#', None) if word.is_none() => break,
            ('|', None) if word.is_none() => break,
            (' ', None) => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The line without what stands in brackets, and with the first of what may stand there.
fn with_and_without(line: &str) -> Vec<String> {
    let (Some(open), Some(close)) = (line.find(" ["), line.find(']')) else {
        return vec![line.to_owned()];
    };
    let (before, inner, after) = (&line[..open], &line[open + 2..close], &line[close + 1..]);
    let first = inner.split(" | ").next().unwrap_or_default();
    let mut all = vec![];
    for inside in [String::new(), format!(" {first}")] {
        all.extend(with_and_without(&format!("{before}{inside}{after}")));
    }
    all
}

fn lines(name: &str, text: &str) -> Vec<Line> {
    let mut all = vec![];
    let mut add = |number: usize, line: &str, prose: bool| {
        for line in with_and_without(line) {
            // What a reader puts his own word for, where it must be a number.
            let line = line.replace("BATCH", "1").replace("NUMBER", "1");
            all.push(Line {
                place: format!("{name}:{}", number + 1),
                words: words(&line),
                prose,
            });
        }
    };
    for (number, line) in text.lines().enumerate() {
        let block = line.trim_start();
        if block.starts_with("gantry ") {
            add(number, block, false);
        }
    }
    for (number, part) in prose(text) {
        if part.starts_with("gantry ") {
            add(number, &part, true);
        }
    }
    all
}

/// What stands between backticks in running text, and in which line it begins. It may go on in the next line, not
/// beyond its paragraph.
fn prose(text: &str) -> Vec<(usize, String)> {
    let (mut all, mut fenced, mut open) = (vec![], false, None::<(usize, String)>);
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        if fence || fenced || line.trim().is_empty() || line.starts_with("    ") {
            open = None;
            continue;
        }
        for (index, part) in line.split('`').enumerate() {
            if index > 0 {
                match open.take() {
                    Some(span) => all.push(span),
                    None => open = Some((number, String::new())),
                }
            }
            if let Some((_, span)) = &mut open {
                let blank = if span.is_empty() || index > 0 {
                    ""
                } else {
                    " "
                };
                *span += &format!("{blank}{}", part.trim());
            }
        }
    }
    all
}

/// Of `kubectl`: its commands, as far as guides name any, with the words that may follow.
const KUBECTL: [(&str, &[&str]); 20] = [
    ("annotate", &[]),
    ("apply", &[]),
    ("auth", &["can-i", "whoami"]),
    ("config", &["set-context", "use-context", "view"]),
    ("cordon", &[]),
    ("cp", &[]),
    ("create", &["token", "namespace"]),
    ("debug", &[]),
    ("delete", &[]),
    ("describe", &[]),
    ("diff", &[]),
    ("drain", &[]),
    ("edit", &[]),
    ("exec", &[]),
    ("get", &[]),
    ("logs", &[]),
    ("port-forward", &[]),
    ("rollout", &["restart", "status", "undo"]),
    ("scale", &[]),
    ("top", &["node", "pod"]),
];

/// What is wrong with a command line of `kubectl`; of a kind, that nothing here is called so.
fn misspelt(words: &[String]) -> Option<String> {
    let mut plain = words.iter().skip(1).filter(|w| !w.starts_with('-'));
    let verb = plain.next()?;
    let Some((_, after)) = KUBECTL.iter().find(|(v, _)| v == verb) else {
        return Some(format!("kubectl has no {verb}, or this table lacks it"));
    };
    let next = plain.next()?;
    if !after.is_empty() {
        return (!after.contains(&next.as_str())).then(|| format!("kubectl {verb} {next}?"));
    }
    if !["get", "edit", "delete", "describe"].contains(&verb.as_str()) {
        return None;
    }
    let mut names: Vec<String> = [
        "pods",
        "secrets",
        "pod",
        "nodes",
        "node",
        "deployments",
        "statefulsets",
        "events",
        "leases",
    ]
    .map(str::to_owned)
    .into();
    for definition in gantry_api::crds() {
        let it = definition.spec.names;
        names.extend([it.plural]);
        names.extend(
            it.singular
                .into_iter()
                .chain(it.short_names.into_iter().flatten()),
        );
        names.push(it.kind.to_lowercase());
    }
    let kinds = next.split('/').next().unwrap_or_default();
    let strange = kinds.split(',').find(|k| !names.iter().any(|n| n == k))?;
    Some(format!("no kind is called {strange}"))
}

#[test]
fn what_stands_in_running_text_is_found_over_the_end_of_a_line() {
    let text =
        "a `gantry up` and `gantry instance\nrestart`: b\n\n    gantry `x`\n\nc `kubectl\n\nget` d";
    let got = prose(text);
    assert_eq!(got[0], (0, "gantry up".to_owned()));
    assert_eq!(got[1], (0, "gantry instance restart".to_owned()));
    assert!(
        !got.iter().any(|(_, span)| span.contains("kubectl get")),
        "{got:?}"
    );
    for (line, wrong) in [
        ("kubectl get groups", false),
        ("kubectl edit group", false),
        ("kubectl get releases.gantry.dev", true),
        ("kubectl obtain groups", true),
        ("kubectl rollout again", true),
    ] {
        assert_eq!(misspelt(&words(line)).is_some(), wrong, "{line}");
    }
}

#[test]
fn every_command_of_the_guides_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("README.md")];
    let docs = std::fs::read_dir(root.join("docs")).expect("docs");
    files.extend(docs.map(|f| f.expect("a file").path()));
    let (mut faults, mut count, mut spans) = (vec![], 0, 0);
    for file in files {
        if file.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(&file).expect("readable");
        for (number, span) in prose(&text) {
            if span.starts_with("kubectl ") {
                let wrong = misspelt(&words(&span));
                faults.extend(wrong.map(|why| format!("{name}:{}: {why}", number + 1)));
                spans += 1;
            }
        }
        for line in lines(&name, &text) {
            count += 1;
            if line.prose {
                // The command that it names says what it is for.
                let named = |w: &&String| {
                    !w.starts_with('-') && w.chars().all(|c| c.is_ascii_lowercase() || c == '-')
                };
                let named = line.words.iter().take_while(named).take(3);
                let help = named.cloned().chain(["--help".to_owned()]);
                let shown = Cli::try_parse_from(help);
                if !shown.is_err_and(|e| e.kind() == ErrorKind::DisplayHelp) {
                    faults.push(format!(
                        "{}: no help for {}",
                        line.place,
                        line.words.join(" ")
                    ));
                }
            }
            let Err(error) = Cli::try_parse_from(&line.words) else {
                continue;
            };
            let incomplete = matches!(
                error.kind(),
                ErrorKind::MissingRequiredArgument
                    | ErrorKind::MissingSubcommand
                    | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                    | ErrorKind::DisplayHelp
            );
            if !(line.prose && incomplete) {
                faults.push(format!("{}: {}\n{error}", line.place, line.words.join(" ")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(count > 100 && spans > 10, "{count} {spans}");
}
