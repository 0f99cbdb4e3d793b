//! The live tree of a release: cluster, cell, instance, with batch, revisions, service and time.

use crate::output::{Tone, age, paint};

/// A release as one screen shows it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReleaseView {
    /// `shop/cart-prod`
    pub group: String,
    pub release: String,
    pub from: i64,
    pub to: i64,
    /// What differs, in a few words: `image cart:1.4.2 → cart:1.5.0`.
    pub change: String,
    pub phase: String,
    pub tone: Option<Tone>,
    /// Batches done and in all, without the bastion.
    pub batches: (u32, u32),
    /// Instances updated and in all.
    pub updated: (u32, u32),
    /// Instances out of service now, and the most that may be.
    pub out: (u32, u32),
    pub message: String,
    pub seconds: i64,
    pub clusters: Vec<ClusterView>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterView {
    pub name: String,
    pub cells: Vec<CellView>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct CellView {
    pub name: String,
    pub instances: Vec<InstanceView>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct InstanceView {
    pub name: String,
    /// 0 is the bastion; `None` while the plan leaves the instance alone.
    pub batch: Option<u32>,
    /// Revision it is on.
    pub revision: i64,
    pub step: Step,
    pub in_service: bool,
    /// Seconds in this step.
    pub seconds: Option<i64>,
    /// The instance's own trouble, if any: `ImagePullBackOff`.
    pub note: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Waiting,
    Draining,
    Updating,
    Checking,
    /// Updated and kept out of traffic until accepted: the bastion.
    Held,
    Done,
    Failed,
    /// On the old revision when the release ended, and never touched.
    Untouched,
    /// On the old revision again.
    TakenBack,
}

impl Step {
    pub fn word(self) -> &'static str {
        match self {
            Step::Waiting => "waiting",
            Step::Draining => "draining",
            Step::Updating => "updating",
            Step::Checking => "checking",
            Step::Held => "held back",
            Step::Done => "updated",
            Step::Failed => "failed",
            Step::Untouched => "untouched",
            Step::TakenBack => "taken back",
        }
    }

    fn tone(self) -> Tone {
        match self {
            Step::Waiting | Step::Untouched => Tone::Dim,
            Step::Draining | Step::Updating | Step::Checking => Tone::Busy,
            Step::Held | Step::TakenBack => Tone::Warn,
            Step::Done => Tone::Good,
            Step::Failed => Tone::Bad,
        }
    }

    /// Moves on the screen, so a person wants to see it.
    fn moves(self) -> bool {
        !matches!(
            self,
            Step::Waiting | Step::Done | Step::Untouched | Step::TakenBack
        )
    }
}

/// Lines that fit into `height`; instances at rest are counted instead of listed when room is short.
pub fn render(view: &ReleaseView, height: usize, width: usize, color: bool) -> Vec<String> {
    // What the release says of itself is never cut.
    let view = &ReleaseView {
        message: wrap(&view.message, width),
        ..view.clone()
    };
    let full = lines(view, false, color);
    let lines = if full.len() <= height {
        full
    } else {
        lines(view, true, color)
    };
    lines
        .into_iter()
        .take(height)
        .map(|line| clip(&line, width))
        .collect()
}

fn lines(view: &ReleaseView, brief: bool, color: bool) -> Vec<String> {
    let mut out = heading(view, color);
    let names = view
        .clusters
        .iter()
        .flat_map(|c| &c.cells)
        .flat_map(|c| &c.instances);
    let wide = names.map(|i| i.name.chars().count()).max().unwrap_or(0);
    let clusters = view.clusters.len();
    for (c, cluster) in view.clusters.iter().enumerate() {
        let (fork, rail) = branch(c + 1 == clusters);
        out.push(format!(
            "{fork}{}",
            paint(&cluster.name, Tone::Strong, color)
        ));
        for (k, cell) in cluster.cells.iter().enumerate() {
            let (twig, stem) = branch(k + 1 == cluster.cells.len());
            out.push(format!("{rail}{twig}{}", cell_line(cell, view.to, color)));
            let shown: Vec<_> = cell
                .instances
                .iter()
                .filter(|i| !brief || i.step.moves())
                .collect();
            for (n, instance) in shown.iter().enumerate() {
                let (leaf, _) = branch(n + 1 == shown.len());
                out.push(format!(
                    "{rail}{stem}{leaf}{}",
                    instance_line(instance, view, wide, color)
                ));
            }
        }
    }
    out
}

fn branch(last: bool) -> (&'static str, &'static str) {
    if last {
        ("└─ ", "   ")
    } else {
        ("├─ ", "│  ")
    }
}

/// Two lines: what is released, and how far it is.
pub fn heading(view: &ReleaseView, color: bool) -> Vec<String> {
    let tone = view.tone.unwrap_or(Tone::Busy);
    let mut lines = vec![
        format!(
            "{}  revision {} → {}  {}",
            paint(&view.group, Tone::Strong, color),
            view.from,
            view.to,
            paint(&view.change, Tone::Dim, color)
        ),
        format!(
            "{} {}  batch {}/{}  updated {}/{}  out of service {} (at most {})  {}",
            bar(view.updated.0, view.updated.1, 24, color),
            paint(&view.phase, tone, color),
            view.batches.0,
            view.batches.1,
            view.updated.0,
            view.updated.1,
            view.out.0,
            view.out.1,
            clock(view.seconds),
        ),
    ];
    let message = if tone == Tone::Bad {
        Tone::Bad
    } else {
        Tone::Dim
    };
    lines.extend(view.message.lines().map(|line| paint(line, message, color)));
    lines
}

fn bar(done: u32, all: u32, width: u32, color: bool) -> String {
    let filled = (done.min(all) * width).checked_div(all).unwrap_or(0) as usize;
    let rest = width as usize - filled;
    format!(
        "{}{}",
        paint("━".repeat(filled), Tone::Good, color),
        paint("─".repeat(rest), Tone::Dim, color)
    )
}

fn cell_line(cell: &CellView, to: i64, color: bool) -> String {
    let all = cell.instances.len();
    let updated = cell.instances.iter().filter(|i| i.revision == to).count();
    let serving = cell.instances.iter().filter(|i| i.in_service).count();
    format!(
        "{}  {}",
        cell.name,
        paint(
            format!("{updated}/{all} on revision {to}, {serving} in service"),
            Tone::Dim,
            color
        )
    )
}

fn instance_line(i: &InstanceView, view: &ReleaseView, wide: usize, color: bool) -> String {
    let batch = match i.batch {
        None => "—".to_owned(),
        Some(0) => "bastion".to_owned(),
        Some(n) => format!("batch {n}"),
    };
    let revision = match i.step {
        Step::Draining | Step::Updating | Step::Checking if view.from != view.to => {
            format!("{} → {}", view.from, view.to)
        }
        _ => i.revision.to_string(),
    };
    let service = if i.in_service {
        paint("● in service ", Tone::Good, color)
    } else {
        paint("○ out        ", Tone::Warn, color)
    };
    let time = i.seconds.map(age).unwrap_or_default();
    let word = paint(format!("{:<10}", i.step.word()), i.step.tone(), color);
    let end = match (time.as_str(), i.note.as_str()) {
        // Nothing follows: no blanks at the end of a line.
        ("", "") => paint(i.step.word(), i.step.tone(), color),
        (time, "") => format!("{word}  {time:>4}"),
        (time, note) => format!("{word}  {time:>4}  {}", paint(note, Tone::Bad, color)),
    };
    format!(
        "{:<wide$}  {:<8}  {:<9}  {service}  {end}",
        i.name, batch, revision
    )
}

/// Breaks a text between words into lines of a width.
fn wrap(text: &str, width: usize) -> String {
    let mut out = String::with_capacity(text.len());
    let mut column = 0;
    for word in text.split(' ') {
        let wide = word.chars().count();
        if column > 0 && column + 1 + wide > width {
            out.push('\n');
            column = 0;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += wide;
    }
    out
}

/// `0:07`, `12:30`, `1:02:03`
pub fn clock(seconds: i64) -> String {
    let s = seconds.max(0);
    match s / 3600 {
        0 => format!("{}:{:02}", s / 60, s % 60),
        h => format!("{h}:{:02}:{:02}", s / 60 % 60, s % 60),
    }
}

/// Cuts a line at a number of visible characters; colour codes take no room.
fn clip(line: &str, width: usize) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut seen, mut in_code, mut cut) = (0, false, false);
    for c in line.chars() {
        if c == '\x1b' {
            in_code = true;
        }
        if in_code {
            out.push(c);
            in_code = c != 'm';
        } else if seen < width {
            out.push(c);
            seen += 1;
        } else {
            cut = true;
        }
    }
    if cut && !out.ends_with("\x1b[0m") && line.contains('\x1b') {
        out.push_str("\x1b[0m");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, batch: u32, step: Step) -> InstanceView {
        let moved = matches!(step, Step::Done | Step::Held);
        InstanceView {
            name: name.into(),
            batch: Some(batch),
            revision: if moved { 2 } else { 1 },
            step,
            in_service: matches!(step, Step::Done | Step::Waiting),
            seconds: step.moves().then_some(7),
            note: if step == Step::Failed {
                "ImagePullBackOff".into()
            } else {
                String::new()
            },
        }
    }

    fn view() -> ReleaseView {
        ReleaseView {
            group: "shop/cart-prod".into(),
            release: "cart-prod-2".into(),
            from: 1,
            to: 2,
            change: "image cart:1.4.2 → cart:1.5.0".into(),
            phase: "Batch".into(),
            tone: None,
            batches: (1, 3),
            updated: (2, 6),
            out: (1, 2),
            message: "batch 2: 1 of 2 updated".into(),
            seconds: 41,
            clusters: vec![
                ClusterView {
                    name: "sh".into(),
                    cells: vec![
                        CellView {
                            name: "sh-a".into(),
                            instances: vec![
                                instance("cart-prod-sh-a-0", 3, Step::Waiting),
                                instance("cart-prod-sh-a-1", 0, Step::Held),
                            ],
                        },
                        CellView {
                            name: "sh-b".into(),
                            instances: vec![instance("cart-prod-sh-b-0", 1, Step::Done)],
                        },
                    ],
                },
                ClusterView {
                    name: "bj".into(),
                    cells: vec![CellView {
                        name: "bj-a".into(),
                        instances: vec![
                            instance("cart-prod-bj-a-0", 2, Step::Updating),
                            instance("cart-prod-bj-a-1", 2, Step::Failed),
                        ],
                    }],
                },
            ],
        }
    }

    #[test]
    fn tree() {
        insta::assert_snapshot!(render(&view(), 50, 120, false).join("\n"));
    }

    #[test]
    fn what_rests_is_counted_when_room_is_short() {
        let lines = render(&view(), 12, 120, false);
        assert!(lines.len() <= 12);
        let text = lines.join("\n");
        assert!(
            text.contains("cart-prod-bj-a-0") && !text.contains("cart-prod-sh-b-0"),
            "{text}"
        );
    }

    #[test]
    fn lines_are_cut_by_what_is_visible() {
        assert_eq!(clip("abcdef", 3), "abc");
        assert_eq!(clip("\x1b[31mabcdef\x1b[0m", 3), "\x1b[31mabc\x1b[0m");
        for line in render(&view(), 50, 40, true) {
            let plain: String = line
                .split('\x1b')
                .map(|p| p.split_once('m').map_or(p, |(_, t)| t))
                .collect();
            assert!(plain.chars().count() <= 80, "{plain}");
        }
    }

    #[test]
    fn messages_are_broken_between_words() {
        assert_eq!(wrap("one two three", 7), "one two\nthree");
        assert_eq!(wrap("unbreakable", 4), "unbreakable");
        assert_eq!(wrap("", 4), "");
    }

    #[test]
    fn clocks() {
        for (s, text) in [(0, "0:00"), (67, "1:07"), (3723, "1:02:03")] {
            assert_eq!(clock(s), text);
        }
    }
}
