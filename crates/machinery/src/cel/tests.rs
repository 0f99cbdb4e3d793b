//! Expressions and what they evaluate to, as tables.

use rstest::rstest;
use serde_json::{Value as Json, json};

use super::*;

fn compile(text: &str) -> Result<Program, Issues> {
    let variables = [("self", Type::Dyn), ("n", Type::Int), ("s", Type::String)];
    let environment = Environment {
        variables: &variables,
        structures: None,
    };
    Program::compile(&environment, text)
}

fn eval(text: &str) -> Result<Json, String> {
    let object = json!({"name": "x", "list": [1, 2, 3], "map": {"a": 1, "b": 2}, "nothing": null,
        "texts": ["a", "b"], "f": 1.5, "nested": {"deep": {"er": "v"}}, "n-n": 1});
    let program = compile(text).map_err(|e| e.to_string())?;
    let variables = [
        (
            "self",
            Value::of(&object, Decl::any()).map_err(|e| e.to_string())?,
        ),
        ("n", Value::Int(7)),
        ("s", Value::text("text")),
    ];
    let (value, _) = program.eval(&variables, 1_000_000);
    let value = value.map_err(|e| e.to_string())?;
    Ok(value.to_json().unwrap_or_else(|| json!(value.type_name())))
}

#[rstest]
#[case("1 + 2 * 3", json!(7))]
#[case("(1 + 2) * -3", json!(-9))]
#[case("7 % 4 == 3 && !false", json!(true))]
#[case("-9223372036854775808", json!(i64::MIN))]
#[case("0x1F", json!(31))]
#[case("1u + 2u", json!(3))]
#[case("1.5e2", json!(150.0))]
#[case("'a' + \"b\" + r'\\n' + '''c'''", json!("ab\\nc"))]
#[case("'\\u00e9\\x41\\101\\n'", json!("éAA\n"))]
#[case("b'abc'", json!("YWJj"))]
#[case("1 == 1.0", json!("compile"))]
#[case("dyn(1) == dyn(1.0)", json!(true))]
#[case("1 < 1.5", json!(true))]
#[case("2u > -1", json!(true))]
#[case("n > 3 ? 'big' : 'small'", json!("big"))]
#[case("self.name == 'x'", json!(true))]
#[case("self['name']", json!("x"))]
#[case("self.list[1]", json!(2))]
#[case("2 in self.list", json!(true))]
#[case("'a' in self.map", json!(true))]
#[case("has(self.name) && !has(self.gone)", json!(true))]
#[case("has(self.nothing)", json!(true))]
#[case("has(self.nothing.deep)", json!(false))]
#[case("self.nothing == null", json!(true))]
#[case("self.list.all(x, x > 0)", json!(true))]
#[case("self.list.exists(x, x > 2)", json!(true))]
#[case("self.list.exists_one(x, x > 2)", json!(true))]
#[case("self.list.map(x, x * 2)", json!([2, 4, 6]))]
#[case("self.list.map(x, x > 1, x * 2)", json!([4, 6]))]
#[case("self.list.filter(x, x != 2)", json!([1, 3]))]
#[case("self.map.all(k, self.map[k] > 0)", json!(true))]
#[case("self.map.exists(k, v, k == 'b' && v == 2)", json!(true))]
#[case("self.list.transformList(i, v, i * v)", json!([0, 2, 6]))]
#[case("self.map.transformMap(k, v, v + 1)", json!({"a": 2, "b": 3}))]
#[case("self.map.transformMapEntry(k, v, {v: k})", json!({"1": "a", "2": "b"}))]
#[case("[1, 2] + [3]", json!([1, 2, 3]))]
#[case("{'a': [1], 'b': [2]}.b[0]", json!(2))]
#[case("size('héllo') + [1].size() + size({1: 2})", json!(7))]
#[case("true || 1 / 0 > 0", json!(true))]
#[case("1 / 0 > 0 || true", json!(true))]
#[case("false && self.gone", json!(false))]
#[case("self.list.exists(x, x / (x - 1) > 1)", json!(true))]
#[case("self.?gone.orValue('none')", json!("none"))]
#[case("self.?nested.?deep.?er.value()", json!("v"))]
#[case("self.nested[?'deep'].hasValue()", json!(true))]
#[case("optional.of(1).optMap(x, x + 1).value()", json!(2))]
#[case("optional.none().or(optional.of(3)).value()", json!(3))]
#[case("[?optional.none(), 1]", json!([1]))]
#[case("{?'a': optional.none(), 'b': 1}", json!({"b": 1}))]
#[case("type(1) == int && type('') == string", json!(true))]
#[case("int('12') + int(3.9) + int(2u)", json!(17))]
#[case("string(1.0) + string(true) + string(1e100)", json!("1true1e+100"))]
#[case("double('1.5')", json!(1.5))]
#[case("duration('1h') + duration('90s') == duration('61m30s')", json!(true))]
#[case("timestamp('2026-01-31T10:20:30Z').getDayOfYear()", json!(30))]
#[case("timestamp('2026-01-31T23:20:30Z').getHours('+01:00')", json!(0))]
#[case("timestamp('2026-01-31T10:00:00Z') + duration('24h') > timestamp('2026-01-31T11:00:00Z')", json!(true))]
#[case("duration('90m').getHours()", json!(1))]
#[case("'hello'.startsWith('he') && 'hello'.endsWith('lo') && 'hello'.contains('ell')", json!(true))]
#[case("'abc123'.matches('^[a-z]+[0-9]{3}$')", json!(true))]
#[case("'hello'.charAt(1) + 'hello'.substring(1, 3) + 'hello'.substring(3)", json!("eello"))]
#[case("'a,b,c'.split(',')", json!(["a", "b", "c"]))]
#[case("'a,b,c'.split(',', 2)", json!(["a", "b,c"]))]
#[case("['a', 'b'].join('-')", json!("a-b"))]
#[case("'hello hello'.replace('he', 'we', 1)", json!("wello hello"))]
#[case("'tacocat'.lastIndexOf('ac') + 'tacocat'.indexOf('c')", json!(2 + 1))]
#[case("' x '.trim() + 'Ab'.lowerAscii() + 'Ab'.upperAscii()", json!("xabAB"))]
#[case("'%s is %d, %.2f, %x'.format(['a', 1, 1.234, 255])", json!("a is 1, 1.23, ff"))]
#[case("strings.quote('a\"b')", json!("\"a\\\"b\""))]
#[case("[3, 1, 2].max() + [3, 1, 2].min() + [1, 2].sum()", json!(7))]
#[case("[1, 2, 2].isSorted() && ['a', 'b'].indexOf('b') == 1", json!(true))]
#[case("'abc 123 def 456'.findAll('[0-9]+')", json!(["123", "456"]))]
#[case("'abc 123'.find('[0-9]+')", json!("123"))]
#[case("sets.contains([1, 2, 3], [2]) && sets.equivalent([1, 1], [1])", json!(true))]
#[case("sets.intersects([1], [2])", json!(false))]
#[case("quantity('1500m').isGreaterThan(quantity('1')) && isQuantity('1Gi') && !isQuantity('x')", json!(true))]
#[case("quantity('1Gi').add(quantity('1Gi')).compareTo(quantity('2Gi'))", json!(0))]
#[case("quantity('50k').asInteger()", json!(50_000))]
#[case("url('https://a.b:80/c?d=e').getHost()", json!("a.b:80"))]
#[case("ip('10.0.0.1').family() == 4 && isIP('::1') && !isIP('x')", json!(true))]
#[case("ip.isCanonical('2001:DB8::1')", json!(false))]
#[case("cidr('10.0.0.0/8').containsIP('10.1.2.3') && cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16')", json!(true))]
#[case("cidr('10.1.2.3/8').masked().ip() == ip('10.0.0.0')", json!(true))]
#[case("semver('1.2.3').isLessThan(semver('1.10.0')) && isSemver('v1.0', true)", json!(true))]
#[case("!format.dns1123Label().validate('a-b').hasValue()", json!(true))]
#[case("format.named('uuid').value().validate('x').hasValue()", json!(true))]
#[case("self.`n-n` == 1", json!(true))]
#[case("// a comment\n1", json!(1))]
#[case("[1, 2].map(x, [3].map(y, x + y))", json!([[4], [5]]))]
fn values(#[case] text: &str, #[case] expected: Json) {
    if expected == json!("compile") {
        assert!(compile(text).is_err(), "{text}");
        return;
    }
    assert_eq!(eval(text), Ok(expected), "{text}");
}

#[rstest]
#[case("1 / 0", "division by zero")]
#[case("9223372036854775807 + 1", "integer overflow")]
#[case("0u - 1u", "unsigned integer overflow")]
#[case("self.gone", "no such key: gone")]
#[case("self.nothing.deep", "no such key: deep")]
#[case("self.list[9]", "index out of bounds: 9")]
#[case("self.name + 1", "no such overload")]
#[case("optional.none().value()", "optional.none() dereference")]
#[case("[1].filter(x, x > 2).max()", "max called on empty list")]
#[case("{'a': 1, 'a': 2}", "Failed with repeated key: a")]
fn faults(#[case] text: &str, #[case] fault: &str) {
    assert_eq!(eval(text), Err(fault.to_owned()), "{text}");
}

#[rstest]
#[case("n.x", "1:2: type 'int' does not support field selection")]
#[case("nope", "1:1: undeclared reference to 'nope' (in container '')")]
#[case("nope(1)", "1:5: undeclared reference to 'nope' (in container '')")]
#[case(
    "n + 'a'",
    "1:3: found no matching overload for '_+_' applied to '(int, string)'"
)]
#[case(
    "s.startsWith(1)",
    "1:13: found no matching overload for 'startsWith' applied to 'string.(int)'"
)]
#[case(
    "n.all(x, true)",
    "1:1: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)"
)]
#[case(
    "[1].all(x, x)",
    "1:12: found no matching overload for '_&&_' applied to '(bool, int)'"
)]
#[case("[1, 'a']", "1:5: expected type 'int' but found 'string'")]
#[case("has(n)", "1:5: invalid argument to has() macro")]
#[case("n ==", "1:5: Syntax error")]
#[case("duration('x')", "1:10: invalid duration argument")]
#[case("s.matches('[')", "1:11: invalid matches argument")]
#[case("1 +\n  nope", "2:3: undeclared reference to 'nope' (in container '')")]
fn refused(#[case] text: &str, #[case] issue: &str) {
    let shown = compile(text).expect_err(text).to_string();
    assert!(
        shown.starts_with(&format!("ERROR: <input>:{issue}")),
        "{text}: {shown}"
    );
}

#[test]
fn issues_show_where() {
    let issues = compile("n > 1 && nope").expect_err("undeclared");
    assert_eq!(
        issues.to_string(),
        "ERROR: <input>:1:10: undeclared reference to 'nope' (in container '')\n | n > 1 && nope\n | .........^"
    );
}

#[test]
fn costs_end_an_evaluation() {
    let program =
        compile("[1,2,3,4,5].all(a, [1,2,3,4,5].all(b, [1,2,3,4,5].all(c, a + b + c > 0)))")
            .expect("compiles");
    let (value, cost) = program.eval(&[], 100);
    assert!(matches!(value, Err(Fault::TooCostly)));
    assert!(cost > 100 && cost < 200, "{cost}");
    let (value, _) = program.eval(&[], 1_000_000);
    assert!(value.is_ok());
}

#[test]
fn depth_is_bounded() {
    let deep = format!("{}1{}", "(".repeat(400), ")".repeat(400));
    assert!(compile(&deep).is_err());
    let long: String = (0..2000).map(|_| "n == 7 && ").collect::<String>() + "true";
    let program = compile(&long).expect("a long chain is not deep");
    let (value, _) = program.eval(&[("n", Value::Int(7))], 100_000);
    assert!(matches!(value, Ok(Value::Bool(true))));
    let sum = "1 + ".repeat(5000) + "1";
    assert!(compile(&sum).is_err());
}

#[test]
fn estimates_follow_declared_bounds() {
    let text = Arc::new(Decl {
        ty: Type::String,
        most: 40,
        ..Decl::default()
    });
    let list = Decl {
        ty: Type::list(Type::String),
        most: 10,
        items: Some(text),
        ..Decl::default()
    };
    let variables = [("self", list.ty.clone())];
    let environment = Environment {
        variables: &variables,
        structures: None,
    };
    let program = Program::compile(&environment, "self.all(x, x.startsWith('a'))").expect("ok");
    // The list 1, each of ten items 3 for the loop and 2 for the call, 1 for the result.
    assert_eq!(program.estimate(&[("self", &list)]).most, 1 + 10 * 5 + 1);
    let json = json!(["a", "ab"]);
    let (value, cost) = program.eval(&[("self", Value::of(&json, &list).expect("list"))], 1000);
    assert!(matches!(value, Ok(Value::Bool(true))));
    assert!(cost <= 52);
}

proptest::proptest! {
    /// Whatever the text: an answer or an error, never a panic.
    #[test]
    fn any_text(text in "[a-z0-9 .,()\\[\\]{}'\"?:&|!=<>+*/%-]{0,60}") {
        let _ = eval(&text);
    }

    /// Of pieces that make sense together, so that evaluation is reached.
    #[test]
    fn any_pieces(pieces in proptest::collection::vec(proptest::sample::select(vec![
        "self", ".list", ".map", ".name", "[0]", "['a']", " + ", " - ", " * ", " / ", " && ", " || ", " == ",
        " in ", "1", "2u", "1.5", "'a'", "(", ")", "[", "]", ",", "{", "}", ":", "?", "!", "-", "size(", ".size()",
        ".all(x, x > 1)", ".map(x, x)", ".filter(x, true)", ".exists(k, v, v == 1)", "has(self.a)", "null", "true",
        ".?a", "[?0]", ".orValue(1)", "duration('1h')", "string(", "int(", ".substring(1)", ".split(',')", "quantity('1')",
    ]), 0..14)) {
        let _ = eval(&pieces.concat());
    }
}

/// As deep as Kubernetes allows and one deeper, on a stack as small as any.
#[test]
fn expressions_are_as_deep_as_in_kubernetes() {
    let nested = |depth: usize| "(".repeat(depth) + "1" + &")".repeat(depth) + " == 1";
    let work = move || {
        let compile = |text: &str| Program::compile(&Environment::default(), text);
        let program = compile(&nested(240)).map_err(|e| e.to_string())?;
        let (value, _) = program.eval(&[], 10_000);
        if !matches!(value, Ok(Value::Bool(true))) {
            return Err("not true".to_owned());
        }
        let sum = vec!["1"; 240].join(" + ");
        let program = compile(&format!("{sum} == 240")).map_err(|e| e.to_string())?;
        let _ = program.estimate(&[]);
        let (value, _) = program.eval(&[], 10_000);
        if !matches!(value, Ok(Value::Bool(true))) {
            return Err("not the sum".to_owned());
        }
        match compile(&nested(300)) {
            Err(issues) => Err(issues.to_string()),
            Ok(_) => Ok(()),
        }
    };
    let thread = std::thread::Builder::new()
        .stack_size(512 * 1024)
        .spawn(work);
    let refused = thread.unwrap().join().unwrap().unwrap_err();
    assert!(
        refused.contains("expression recursion limit exceeded: 250"),
        "{refused}"
    );
}
