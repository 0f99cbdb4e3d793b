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
            continue;
        }
        for part in line.split('`').skip(1).step_by(2) {
            if part.starts_with("gantry ") {
                add(number, part, true);
            }
        }
    }
    all
}

#[test]
fn every_command_of_the_guides_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("README.md")];
    let docs = std::fs::read_dir(root.join("docs")).expect("docs");
    files.extend(docs.map(|f| f.expect("a file").path()));
    let (mut faults, mut count) = (vec![], 0);
    for file in files {
        if file.extension().is_none_or(|e| e != "md") {
            continue;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let text = std::fs::read_to_string(&file).expect("readable");
        for line in lines(&name, &text) {
            count += 1;
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
    assert!(count > 100, "{count}");
}
