//! The file of static tokens: CSV lines of `token,user,uid,"group1,group2"`.

use std::path::Path;

use gantry_apiserver::StaticToken;

use crate::failure::{Exit, Failure, Result};

pub fn read(path: &Path) -> Result<Vec<StaticToken>> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Failure::new(
            Exit::Failure,
            format!("--token-auth-file: cannot read {}: {e}", path.display()),
        )
    })?;
    parse(&text).map_err(|line| {
        // The line itself holds a secret and is not repeated.
        Failure::new(
            Exit::Failure,
            format!(
                "--token-auth-file: {} line {line}: not of the form token,user,uid[,\"groups\"]",
                path.display()
            ),
        )
    })
}

/// The tokens of a text, or the number of the line that is wrong. As kube-apiserver does, lines with
/// an empty token are passed over.
fn parse(text: &str) -> Result<Vec<StaticToken>, usize> {
    let mut tokens = vec![];
    for (i, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let fields = fields(line).ok_or(i + 1)?;
        let [token, user, uid, rest @ ..] = fields.as_slice() else {
            return Err(i + 1);
        };
        if user.is_empty() {
            return Err(i + 1);
        }
        if token.is_empty() {
            continue;
        }
        let groups = rest.first().map_or("", String::as_str);
        tokens.push(StaticToken {
            token: token.clone(),
            user: user.clone(),
            uid: uid.clone(),
            groups: groups
                .split(',')
                .map(str::trim)
                .filter(|g| !g.is_empty())
                .map(str::to_owned)
                .collect(),
        });
    }
    Ok(tokens)
}

/// The fields of a CSV line (RFC 4180), blanks around them left out.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = vec![];
    let mut rest = line.trim();
    loop {
        rest = rest.trim_start();
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next()? {
                    (i, '"') if quoted[i + 1..].starts_with('"') => {
                        field.push('"');
                        chars.next();
                    }
                    (i, '"') => break i,
                    (_, c) => field.push(c),
                }
            };
            fields.push(field);
            rest = quoted[end + 1..].trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            if rest[..end].contains('"') {
                return None;
            }
            fields.push(rest[..end].trim().to_owned());
            rest = &rest[end..];
        }
        if rest.is_empty() {
            return Some(fields);
        }
        rest = rest.strip_prefix(',')?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_kubernetes_reads_them() {
        let text = "t1,admin,u1,\"system:masters,other\"\n# a comment\n\nt2, bob , u2\nt3,\"a \"\"b\"\"\",,one\n,nobody,x\n";
        let tokens = parse(text).expect("read");
        let shown: Vec<String> = tokens
            .iter()
            .map(|t| format!("{}|{}|{}|{}", t.token, t.user, t.uid, t.groups.join("+")))
            .collect();
        assert_eq!(
            shown,
            [
                "t1|admin|u1|system:masters+other",
                "t2|bob|u2|",
                "t3|a \"b\"||one"
            ]
        );
    }

    #[test]
    fn wrong_lines_are_named_by_number() {
        for (text, line) in [
            ("a,b,c\nx,y", 2),
            ("a,,c", 1),
            ("a,b,c,\"open", 1),
            ("a\"b,c,d", 1),
        ] {
            assert_eq!(parse(text).err(), Some(line), "{text}");
        }
    }
}
