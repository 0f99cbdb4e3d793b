//! Scripts that conformance tests and examples give to their containers.

use super::*;
use rstest::rstest;

fn told_in(disk: Disk, words: &[&str], variables: &[(&str, &str)]) -> Option<Told> {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let setting = Setting {
        variables: variables.collect(),
        disk,
        horizon: LONGEST,
        draw: Draw::new(1),
        typed: false,
        coming: vec![],
    };
    run(&words, setting)
}

fn sh(script: &str) -> Option<Told> {
    told_in(
        Disk::default(),
        &["/bin/sh", "-c", script],
        &[("A", "b c"), ("N", "7"), ("HOSTNAME", "web-0")],
    )
}

fn output(told: &Told) -> String {
    let all: Vec<u8> = told
        .printed
        .iter()
        .flat_map(|it| it.bytes.clone())
        .collect();
    String::from_utf8(all).unwrap()
}

/// Milliseconds, code and output of a script; no code if it does not end.
#[rstest]
#[case("exit 3; echo no", Some((20, 3)), "")]
#[case("echo \"$A\" $A '$A' $?", Some((20, 0)), "b c b c $A 0\n")]
#[case("sleep 1.5; sleep 2m; false", Some((121_500, 1)), "")]
#[case(
    "while true; do echo polo; sleep 100d; done",
    None,
    "polo\npolo\npolo\npolo\npolo\n"
)]
#[case("if [ $N -eq 7 ]; then echo yes; elif true; then echo no; else echo no; fi", Some((20, 0)), "yes\n")]
#[case("if [[ -r /data/x ]] ; then exit 0 ; else touch /tmp/x ; exit 1 ; fi", Some((20, 1)), "")]
#[case("f=/tmp/f\nn=$(echo hello >> $f ; wc -l $f | awk {'print $1'})\necho $n; rm $f; cat $f 2>/dev/null || echo gone", Some((20, 0)), "1\ngone\n")]
#[case("for i in a \"b c\"; do echo -n \"<$i>\"; done; ! false && (cd /tmp; pwd); pwd", Some((20, 0)), "<a><b c>/tmp\n/\n")]
#[case("exit $(( 5 + N * 2 - 9 / 3 ))", Some((20, 16)), "")]
#[case("test -f /no || { echo x >&2; exec false; }", Some((20, 1)), "x\n")]
#[case("echo a > /no/f; echo $?", Some((20, 0)), "sh: can't create /no/f: nonexistent directory\n1\n")]
#[case("X=1 env | grep X; echo [$X]", Some((20, 0)), "X=1\n[]\n")]
#[case("hostname; echo `echo 'a b'`", Some((20, 0)), "web-0\na b\n")]
fn scripts(#[case] script: &str, #[case] end: Option<(u64, i32)>, #[case] printed: &str) {
    let told = sh(script).unwrap_or_else(|| panic!("not run: {script}"));
    let ended = told
        .end
        .map(|(at, code)| (u64::try_from(at.as_millis()).unwrap(), code));
    assert_eq!((ended, output(&told).as_str()), (end, printed), "{script}");
}

#[rstest]
#[case("nginx -g 'daemon off;'")]
#[case("sleep 1 & wait")]
#[case("cat < /etc/hosts")]
#[case("echo $1")]
#[case("if true; then echo")]
#[case("curl http://x || exit 1")]
fn what_is_not_simulated_is_not_run(#[case] script: &str) {
    assert!(sh(script).is_none(), "{script}");
}

#[test]
fn words_are_known_by_command_and_image() {
    let list = |it: &[&str]| it.iter().map(ToString::to_string).collect::<Vec<_>>();
    let of =
        |image: &str, command: &[&str], args: &[&str]| words(image, &list(command), &list(args));
    assert_eq!(
        of("a/busybox:1", &[], &["sleep", "1"]),
        Some(list(&["sleep", "1"]))
    );
    assert_eq!(
        of("x", &["/bin/sh", "-c"], &["true"]),
        Some(list(&["/bin/sh", "-c", "true"]))
    );
    assert_eq!(of("x", &[], &["sleep", "1"]), None);
    assert_eq!(of("x", &["nginx"], &[]), None);
    let variables = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
    assert_eq!(
        expanded("$(A) $(B) $$(A) $A $", &variables),
        "1 $(B) $(A) $A $"
    );
}

#[test]
fn a_probe_follows_the_files_of_the_program() {
    let told = sh("echo ok >/tmp/health; sleep 10; rm -rf /tmp/health; sleep 600").unwrap();
    let command = ["cat", "/tmp/health"].map(str::to_owned);
    let health = probed(
        &command,
        &BTreeMap::new(),
        &Disk::default(),
        &told.disk.changes,
    );
    let ten = Duration::from_secs(10);
    assert_eq!(health, Some((Some(Duration::ZERO), Some(ten))));
    let never = probed(
        &["false".to_owned()],
        &BTreeMap::new(),
        &Disk::default(),
        &[],
    );
    assert_eq!(never, Some((None, None)));
    let unknown = probed(
        &["grpc_health".to_owned()],
        &BTreeMap::new(),
        &Disk::default(),
        &[],
    );
    assert_eq!(unknown, None);
}

#[test]
fn a_container_leaves_what_it_wrote_or_the_end_of_its_log() {
    let file = "/dev/termination-log";
    let case = |script: &str, from_log: bool| message(&sh(script).unwrap(), file, from_log);
    assert_eq!(
        case("echo -n DONE > /dev/termination-log; false", true).as_deref(),
        Some("DONE")
    );
    assert_eq!(case("echo -n DONE; false", true).as_deref(), Some("DONE"));
    assert_eq!(case("echo -n DONE", true), None);
    assert_eq!(case("echo -n DONE; false", false), None);
}

#[test]
fn volumes_are_shared_and_some_are_not_known() {
    let mut disk = Disk::default();
    disk.folder("/data");
    disk.put("/data/foo", b"1".to_vec());
    disk.folder("/config");
    disk.unknown.push("/config".to_owned());
    disk.read_only = true;
    disk.writable.push("/data".to_owned());
    let script = "cat /data/foo /config/a; echo 2 >> /data/bar; echo 3 > /file; ls /data";
    let told = told_in(disk, &["sh", "-c", script], &[]).unwrap();
    assert_eq!(
        output(&told),
        "1sh: can't create /file: Read-only file system\nbar\nfoo\n"
    );
    let volume = told.disk.under("/data");
    assert_eq!(
        volume.get("/bar").map(Vec::as_slice),
        Some(b"2\n".as_slice())
    );
}

#[test]
fn agnhost_looks_at_volumes() {
    let mut disk = Disk::default();
    disk.folder("/v");
    disk.writable.push("/v".to_owned());
    disk.memory.push("/v".to_owned());
    disk.put("/etc/c/data-1", b"value-1".to_vec());
    disk.mode("/etc/c/data-1", 0o400);
    let args = [
        "/agnhost",
        "mounttest",
        "--fs_type=/v",
        "--new_file_0666=/v/f",
        "--file_perm=/v/f",
        "--file_mode=/etc/c/data-1",
        "--file_content=/etc/c/data-1",
    ];
    let told = told_in(disk.clone(), &args, &[]).unwrap();
    let expected = "mount type of \"/v\": tmpfs\n\
        content of file \"/v/f\": mount-tester new file\n\n\
        mode of file \"/etc/c/data-1\": -r--------\n\
        perms of file \"/v/f\": -rw-rw-rw-\n\
        content of file \"/etc/c/data-1\": value-1\n";
    assert_eq!((output(&told).as_str(), told.end.unwrap().1), (expected, 0));
    let args = [
        "/agnhost",
        "mounttest",
        "--file_content_in_loop=/etc/c/no",
        "--retry_time=3",
    ];
    let told = told_in(disk, &args, &[]).unwrap();
    assert_eq!(
        (told.printed.len(), told.end),
        (2, Some((Duration::from_secs(4), 1)))
    );
}

#[test]
fn files_belong_to_who_makes_them_and_to_the_group_of_their_directory() {
    let mut disk = Disk::default();
    disk.folder("/v");
    disk.mode("/v", 0o3777);
    disk.own("/v", (0, 123));
    disk.folder("/w");
    disk.user = (1001, 2002);
    let look = |file: &str, path: &str| {
        let new = format!("--new_file_0660={file}");
        let args = [
            format!("--file_owner={path}"),
            format!("--file_mode={path}"),
            format!("--file_perm={path}"),
        ];
        let args = ["/agnhost", "mounttest", &new, &args[0], &args[1], &args[2]];
        output(&told_in(disk.clone(), &args, &[]).unwrap())
    };
    let shown = look("/v/f", "/v/f");
    let wanted = "mode of file \"/v/f\": -rw-rw----\nperms of file \"/v/f\": -rw-rw----\n\
        owner UID of \"/v/f\": 1001\nowner GID of \"/v/f\": 123\n";
    assert!(shown.ends_with(wanted), "{shown}");
    let shown = look("/w/f", "/v");
    let wanted = "mode of file \"/v\": dgtrwxrwxrwx\nperms of file \"/v\": -rwxrwxrwx\n\
        owner UID of \"/v\": 0\nowner GID of \"/v\": 123\n";
    assert!(shown.ends_with(wanted), "{shown}");
    assert!(look("/w/f", "/w/f").ends_with("owner GID of \"/w/f\": 2002\n"));
    assert!(
        look("/w/f", "/no")
            .contains("error from stat(\"/no\"): stat /no: no such file or directory\n")
    );
}

#[test]
fn what_others_do_to_files_is_seen_at_its_time() {
    let seconds = Duration::from_secs;
    let mut disk = Disk::default();
    disk.put("/c/old", b"1".to_vec());
    let setting = Setting {
        variables: BTreeMap::new(),
        disk,
        horizon: seconds(5),
        draw: Draw::new(1),
        typed: false,
        coming: vec![
            (seconds(1), "/c/new".to_owned(), Some(b"2".to_vec())),
            (seconds(3), "/c/old".to_owned(), None),
        ],
    };
    let script = "while true; do ls /c; sleep 2; done";
    let words = ["sh", "-c", script].map(str::to_owned);
    let told = run(&words, setting).unwrap();
    assert_eq!(output(&told), "old\nnew\nold\nnew\n");
    assert!(told.disk.changes.is_empty(), "these are not its own");
}

#[test]
fn bytes_are_dumped() {
    let told = sh("printf 'Hello, bytes and rows' | hexdump -C; id -u").unwrap();
    assert_eq!(
        output(&told),
        "00000000  48 65 6c 6c 6f 2c 20 62  79 74 65 73 20 61 6e 64  |Hello, bytes and|\n\
         00000010  20 72 6f 77 73                                    | rows|\n\
         00000015\n0\n"
    );
}

#[test]
fn grep_knows_patterns() {
    let text = "one\n\ntwo+three\nOne (1)\n";
    for (flags, pattern, expected) in [
        ("-v", "^\\s*$", "one\ntwo+three\nOne (1)\n"),
        ("-i", "^one", "one\nOne (1)\n"),
        ("-c", "o", "2\n"),
        ("-E", "two|[(]1", "two+three\nOne (1)\n"),
        ("-F", "(1)", "One (1)\n"),
        ("-e", "x", ""),
        ("-v", "two+three\\|one", "\nOne (1)\n"),
    ] {
        let mut session = Session::new(
            BTreeMap::default(),
            Disk::default(),
            jiff::Timestamp::UNIX_EPOCH,
            "it",
        );
        let words = ["grep", flags, pattern].map(str::to_owned);
        let said = session.run(&words, Some(text.as_bytes()));
        let out = said.printed.iter().filter(|it| !it.error);
        let out: Vec<u8> = out.flat_map(|it| it.bytes.clone()).collect();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            expected,
            "{flags} {pattern}"
        );
    }
}

#[test]
fn head_tells_the_first_lines() {
    for (args, expected) in [
        (&["-n", "2"][..], "1\n2\n"),
        (&["-1"], "1\n"),
        (&["-n3"], "1\n2\n3\n"),
        (&[], "1\n2\n3\n4"),
    ] {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut session = Session::new(BTreeMap::default(), Disk::default(), now, "it");
        let words: Vec<String> = ["head"]
            .iter()
            .chain(args)
            .map(ToString::to_string)
            .collect();
        let said = session.run(&words, Some(b"1\n2\n3\n4"));
        let out: Vec<u8> = said
            .printed
            .iter()
            .flat_map(|it| it.bytes.clone())
            .collect();
        assert_eq!(String::from_utf8(out).unwrap(), expected, "{args:?}");
    }
}
