//! Random lives.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    Pass(u32),
    Image(u8),
    Gate(bool),
    Delete(u8),
    Rules(u8),
    Restart,
    Cpu(u8),
    Room(bool),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => (1u32..40_000).prop_map(Act::Pass),
        2 => (0u8..4).prop_map(Act::Image),
        2 => any::<bool>().prop_map(Act::Gate),
        1 => (0u8..40).prop_map(Act::Delete),
        2 => (0u8..6).prop_map(Act::Rules),
        2 => Just(Act::Restart),
        2 => (1u8..4).prop_map(Act::Cpu),
        1 => any::<bool>().prop_map(Act::Room),
    ]
}

const RULES: [&str; 6] = [
    "[]",
    SLOW,
    "[{crash: {after: 3s, probability: 0.5}}]",
    "[{image: '*:2', pullError: gone}, {image: '*:3', startError: exec format error}]",
    "[{ready: never}, {image: '*:1', hang: 20s}]",
    "[{run: 4s, exitCode: 1}, {stop: 50s}]",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever happens in whatever order, the invariants of [`Snapshot`] hold at each step, and once
    /// the pod is deleted it goes in time.
    #[test]
    fn random_lives(
        acts in proptest::collection::vec(act(), 1..25),
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        first in 0usize..6,
        probes in any::<bool>(),
    ) {
        let mut spec = json!({
            "restartPolicy": policy,
            "readinessGates": [{"conditionType": "g"}],
            "initContainers": [{"name": "init", "image": "i:1"}, {"name": "side", "image": "s:1", "restartPolicy": "Always"}],
            "containers": [{"name": "app", "image": "a:0"}, {"name": "log", "image": "l:1",
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]}],
        });
        if probes {
            spec["containers"][0]["livenessProbe"] = json!({"periodSeconds": 3});
            spec["containers"][0]["readinessProbe"] = json!({"periodSeconds": 2});
            spec["containers"][1]["startupProbe"] = json!({"periodSeconds": 2});
        }
        let mut bench = Bench::new(RULES[first], spec);
        for act in acts {
            match act {
                Act::Pass(millis) => bench.pass(f64::from(millis) / 1000.0),
                Act::Image(tag) => bench.edit(|object| object["spec"]["containers"][0]["image"] = json!(format!("a:{tag}"))),
                Act::Gate(open) => bench.gate("g", if open { "True" } else { "False" }),
                Act::Delete(grace) => bench.delete_with(grace.into()),
                Act::Rules(index) => {
                    let before = std::mem::replace(&mut bench.behaviours, behaviours(RULES[usize::from(index)]));
                    bench.step(Input::Rules(&before));
                }
                Act::Restart => bench.restart(),
                // Nobody resizes what has ended.
                Act::Cpu(_) if bench.pod.finished() => {}
                Act::Cpu(cpu) => bench.edit(|object| {
                    for container in 0..2 {
                        object["spec"]["containers"][container]["resources"] = json!({"requests": {"cpu": cpu.to_string()}});
                    }
                }),
                Act::Room(enough) => {
                    bench.room = if enough { Ok(()) } else { resize::no_room() };
                    bench.answer();
                }
            }
        }
        bench.delete_with(30);
        bench.pass(31.0);
        prop_assert!(bench.delete, "deleted, and still there: {}", bench.summary());
    }
}
