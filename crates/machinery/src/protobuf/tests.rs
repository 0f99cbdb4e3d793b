//! Bodies made by hand, and bodies nobody would make.

use base64::Engine;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    decode::{FieldValidation, Format},
    resource::builtin_resources,
};

/// A field of bytes; all of these are shorter than 128.
fn bytes(number: u16, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128, "one byte of length");
    let tag = number << 3 | 2;
    let mut out = if tag < 128 {
        vec![tag as u8]
    } else {
        vec![tag as u8 | 0x80, (tag >> 7) as u8]
    };
    out.push(content.len() as u8);
    out.extend_from_slice(content);
    out
}

fn varint(number: u8, value: u8) -> Vec<u8> {
    vec![number << 3, value]
}

fn body(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let mut type_meta = bytes(1, api_version.as_bytes());
    type_meta.extend(bytes(2, kind.as_bytes()));
    let mut out = PREFIX.to_vec();
    out.extend(bytes(1, &type_meta));
    out.push(2 << 3 | 2);
    let mut length = message.len();
    while length > 127 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(message);
    out.extend(bytes(3, b""));
    out.extend(bytes(4, b""));
    out
}

fn object(api_version: &str, kind: &str, message: &[Vec<u8>]) -> Result<Value, Fault> {
    envelope(&body(api_version, kind, &message.concat()))?.object()
}

#[test]
fn scalars_maps_and_bytes() {
    let meta = [
        bytes(1, b"x"),
        bytes(8, &[varint(1, 1), varint(2, 9)].concat()),
        bytes(11, &[bytes(1, b"a"), bytes(2, b"b")].concat()),
        bytes(11, &bytes(1, b"only-key")),
        bytes(14, b"f1"),
        bytes(14, b"f2"),
    ];
    let got = object(
        "v1",
        "ConfigMap",
        &[
            bytes(1, &meta.concat()),
            bytes(2, &[bytes(1, b"k"), bytes(2, b"v")].concat()),
            bytes(3, &[bytes(1, b"bin"), bytes(2, &[0, 255])].concat()),
            varint(4, 1),
            bytes(15, b"a field of the future"),
        ],
    )
    .expect("decoded");
    assert_eq!(
        got,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": "x", "creationTimestamp": "1970-01-01T00:00:01Z",
                "labels": {"a": "b", "only-key": ""}, "finalizers": ["f1", "f2"],
            },
            "data": {"k": "v"}, "binaryData": {"bin": "AP8="}, "immutable": true,
        })
    );
}

#[test]
fn embedded_structs_are_their_parents_fields() {
    let quantity = |text: &str| bytes(1, text.as_bytes());
    let secret = bytes(6, &bytes(1, b"s"));
    let volume = [bytes(1, b"v"), bytes(2, &secret)].concat();
    let port = bytes(2, &[varint(1, 0), varint(2, 80)].concat());
    let probe = bytes(1, &bytes(2, &port));
    let limits = bytes(
        1,
        &[bytes(1, b"cpu"), bytes(2, &quantity("1500m"))].concat(),
    );
    let container = [bytes(1, b"c"), bytes(8, &limits), bytes(10, &probe)].concat();
    let context = [varint(4, 7), bytes(4, &[8, 9])].concat();
    let spec = [bytes(1, &volume), bytes(2, &container), bytes(14, &context)].concat();
    let got = object("v1", "Pod", &[bytes(2, &spec)]).expect("decoded");
    assert_eq!(
        got["spec"],
        json!({
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
            "containers": [{
                "name": "c", "resources": {"limits": {"cpu": "1500m"}},
                "livenessProbe": {"httpGet": {"port": 80}},
            }],
            "securityContext": {"supplementalGroups": [7, 8, 9]},
        })
    );
}

#[test]
fn a_message_given_twice_is_merged() {
    let first = bytes(1, &bytes(1, b"x"));
    let second = bytes(1, &bytes(3, b"ns"));
    let got = object("v1", "ConfigMap", &[first, second]).expect("decoded");
    assert_eq!(got["metadata"], json!({"name": "x", "namespace": "ns"}));
}

#[test]
fn int_or_string_negative_numbers_and_micro_times() {
    let percent = [varint(1, 1), varint(2, 0), bytes(3, b"10%")].concat();
    let got = object(
        "policy/v1",
        "PodDisruptionBudget",
        &[bytes(2, &bytes(1, &percent))],
    );
    assert_eq!(
        got.expect("decoded")["spec"],
        json!({"minAvailable": "10%"})
    );
    let mut minus = vec![2 << 3];
    minus.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
    let renewed = bytes(4, &[varint(1, 5), vec![2 << 3, 0xe8, 0x07]].concat());
    let spec = bytes(2, &[minus, renewed].concat());
    let got = object("coordination.k8s.io/v1", "Lease", &[spec]).expect("decoded");
    assert_eq!(
        got["spec"],
        json!({"leaseDurationSeconds": -1, "renewTime": "1970-01-01T00:00:05.000001Z"})
    );
}

#[test]
fn raw_json_schemas_and_lists_that_can_be_null() {
    let fields = bytes(7, &bytes(1, br#"{"f:data":{}}"#));
    let managed = bytes(17, &[bytes(1, b"m"), fields].concat());
    let got = object("v1", "ConfigMap", &[bytes(1, &managed)]).expect("decoded");
    assert_eq!(
        got["metadata"]["managedFields"],
        json!([{"manager": "m", "fieldsV1": {"f:data": {}}}])
    );
    let extra = bytes(
        5,
        &[
            bytes(1, b"k"),
            bytes(2, &[bytes(1, b"a"), bytes(1, b"b")].concat()),
        ]
        .concat(),
    );
    let got = object(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        &[bytes(2, &extra)],
    );
    assert_eq!(
        got.expect("decoded")["spec"]["extra"],
        json!({"k": ["a", "b"]})
    );
}

#[test]
fn options_belong_to_every_group() {
    let got = object(
        "apps/v1",
        "DeleteOptions",
        &[varint(1, 0), bytes(4, b"Foreground")],
    );
    assert_eq!(
        got.expect("decoded"),
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "propagationPolicy": "Foreground"})
    );
}

/// Bodies of subresources, of which the endpoint's kind says nothing: they go through their type.
#[test]
fn subresources_bodies_lose_what_go_wrote_empty() {
    let parse = |api_version: &str, kind: &str, message: &[u8]| {
        crate::decode::parse(&body(api_version, kind, message), Format::Protobuf)
            .map(|parsed| parsed.value)
    };
    let empty = [bytes(1, b"p"), bytes(2, b""), varint(7, 0), bytes(8, b"")].concat();
    let meta = bytes(1, &empty);
    let target = bytes(
        2,
        &[bytes(1, b"Node"), bytes(2, b""), bytes(3, b"n1")].concat(),
    );
    let binding = parse("v1", "Binding", &[meta.clone(), target].concat()).expect("decoded");
    assert_eq!(
        binding,
        json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"},
            "target": {"kind": "Node", "name": "n1"}})
    );
    let options = bytes(2, &[varint(1, 0), bytes(2, &bytes(1, b"u"))].concat());
    let eviction = parse("policy/v1", "Eviction", &[meta.clone(), options].concat());
    assert_eq!(
        eviction.expect("decoded")["deleteOptions"],
        json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "u"}})
    );
    let counts = [bytes(2, &varint(1, 3)), bytes(3, &varint(1, 0))].concat();
    let scale = parse("autoscaling/v1", "Scale", &[meta, counts].concat()).expect("decoded");
    assert_eq!(scale["spec"], json!({"replicas": 3}));
    let refused = parse("v1", "Car", b"").expect_err("no such kind");
    assert_eq!(refused.code, 400);
}

#[test]
fn what_is_no_object_is_refused() {
    assert_eq!(envelope(b"{}"), Err(Fault::Prefix));
    assert_eq!(envelope(b"k8s\0\x0a\x05a"), Err(Fault::Eof));
    assert_eq!(object("v1", "", &[]), Err(Fault::MissingKind));
    assert!(matches!(
        object("v1", "Car", &[]),
        Err(Fault::UnknownKind { .. })
    ));
    let wrong = object("v1", "ConfigMap", &[varint(1, 1)]);
    assert!(
        matches!(wrong, Err(Fault::WrongWireType { wire: 0, .. })),
        "{wrong:?}"
    );
    // Validity of times: seconds beyond the year 9999.
    let late = vec![1 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let meta = bytes(1, &bytes(8, &late));
    assert!(matches!(
        object("v1", "ConfigMap", &[meta]),
        Err(Fault::Value { .. })
    ));
}

#[test]
fn nesting_is_bounded() {
    // `not` of a JSONSchemaProps is field 28: a schema within a schema, innermost first.
    let mut schema = vec![];
    for _ in 0..500 {
        let mut outer = vec![0xe2, 0x01];
        let mut length = schema.len();
        while length > 127 {
            outer.push(length as u8 | 0x80);
            length >>= 7;
        }
        outer.push(length as u8);
        outer.extend(schema);
        schema = outer;
    }
    let id = table::by_name(table::SCHEMA).expect("built in");
    assert_eq!(id.get().field(28).map(|f| f.name), Some("not"));
    let got = decode::whole(&schema, id.get(), decode::DEPTH);
    assert_eq!(got, Err(Fault::TooDeep));
}

#[test]
fn the_whole_way_settles_empty_values_and_checks_the_kind() {
    let resources = builtin_resources();
    let of = |plural: &str| {
        resources
            .iter()
            .find(|r| r.plural == plural)
            .expect("built in")
    };
    // Go writes every string and number that is no pointer, empty or not.
    let meta = bytes(
        1,
        &[bytes(1, b"x"), bytes(2, b""), varint(7, 0), bytes(8, b"")].concat(),
    );
    let sent = body("v1", "Secret", &[meta, bytes(3, b"Opaque")].concat());
    let got = decode_as(of("secrets"), &sent).expect("decoded");
    assert_eq!(
        got,
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "type": "Opaque"})
    );
    let refused = decode_as(of("configmaps"), &sent).expect_err("another kind");
    assert!(
        refused.contains("cannot be handled as a ConfigMap"),
        "{refused}"
    );
    let refused = decode_as(of("secrets"), b"junk").expect_err("no prefix");
    assert!(refused.contains("must be of type Secret"), "{refused}");
}

fn decode_as(resource: &crate::resource::Resource, sent: &[u8]) -> Result<Value, String> {
    crate::decode::decode(resource, sent, Format::Protobuf, FieldValidation::Strict)
        .map(|d| d.object)
        .map_err(|failure| {
            assert_eq!(failure.code, 400);
            failure.message
        })
}

/// A deployment as `kubectl create deployment` sends it.
const DEPLOYMENT: &str = concat!(
    "azhzAAoVCgdhcHBzL3YxEgpEZXBsb3ltZW50EroBCh8KA3dlYhIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEogB",
    "CAISDAoKCgNhcHASA3dlYhpuChwKABIAGgAiACoAMgA4AEIAWgoKA2FwcBIDd2ViEk4SMAoFbmdpbngSB25naW54",
    "OjEqADIKCgAQABhQIgAqAEIAagByAIABAIgBAJABAKIBABoAMgBCAEoAUgBYAGAAaACCAQCKAQCaAQDCAQAiAgoA",
    "KAA4ABoMCAAQABgAIAAoADgAGgAiAA==",
);

fn captured() -> Vec<u8> {
    base64::engine::general_purpose::STANDARD
        .decode(DEPLOYMENT)
        .expect("valid")
}

#[test]
fn a_deployment_as_kubectl_sends_it() {
    let resources = builtin_resources();
    let resource = resources
        .iter()
        .find(|r| r.kind == "Deployment")
        .expect("built in");
    let got = decode_as(resource, &captured()).expect("decoded");
    assert_eq!(
        got,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "labels": {"app": "web"}},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "web"}},
                "strategy": {},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{
                        "name": "nginx", "image": "nginx:1", "resources": {},
                        "ports": [{"containerPort": 80}],
                    }]},
                },
            },
            "status": {},
        })
    );
}

/// Every cut of a real body is refused or, at the seams of its outer fields, taken: never a panic.
#[test]
fn truncated_bodies_are_refused() {
    let whole = captured();
    let resources = builtin_resources();
    let resource = resources
        .iter()
        .find(|r| r.kind == "Deployment")
        .expect("built in");
    let seams = [whole.len(), whole.len() - 2, whole.len() - 4];
    let object = decode_as(resource, &whole);
    for length in 0..=whole.len() {
        let got = decode_as(resource, &whole[..length]);
        if seams.contains(&length) {
            assert_eq!(got, object);
        } else if length > 60 {
            assert!(got.is_err(), "{length}: {got:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_flipped_byte_never_panics(at in any::<proptest::sample::Index>(), byte: u8) {
        let mut sent = captured();
        let at = at.index(sent.len());
        sent[at] = byte;
        let resources = builtin_resources();
        let resource = resources.iter().find(|r| r.kind == "Deployment").expect("built in");
        let _ = decode_as(resource, &sent);
    }

    #[test]
    fn random_messages_never_panic(
        content in proptest::collection::vec(any::<u8>(), 0..300),
        which in any::<proptest::sample::Index>(),
    ) {
        let resource = &builtin_resources()[which.index(builtin_resources().len())];
        let sent = body(&resource.api_version(), &resource.kind, &content);
        let _ = decode_as(resource, &sent);
        let _ = envelope(&content);
    }

    #[test]
    fn every_message_takes_any_small_fields(
        fields in proptest::collection::vec((1u8..16, 0u8..6, proptest::collection::vec(0u8..32, 0..6)), 0..20),
        which in any::<proptest::sample::Index>(),
    ) {
        let messages: Vec<_> = table::all().collect();
        let (_, message) = messages[which.index(messages.len())];
        let mut sent = vec![];
        for (number, wire, content) in fields {
            sent.push(number << 3 | wire);
            if wire == 2 {
                sent.push(content.len() as u8);
            }
            sent.extend(content);
        }
        let _ = decode::whole(&sent, message, decode::DEPTH);
    }
}
