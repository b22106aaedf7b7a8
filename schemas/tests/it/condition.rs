use tidegate_schemas::block::Condition;

#[test]
fn conditions_have_one_form() {
    for text in ["a=1", " a = 1 ", "a>=-1", "_row != 0", "A_1<2.5e3", "a = 'x = y'", "a = \"\"", "a = x > y", "a = '", "a <= b c"] {
        assert!(text.parse::<Condition>().is_ok(), "{text}");
    }
    for text in
        ["", "a", "= 1", "a =", "a = ", "a == 1", "a => 1", "a >> 1", "a <> 1", "a ! 1", "a !== 1", "a b = 1", "a-b = 1", "\u{e4} = 1"]
    {
        let error = text.parse::<Condition>().unwrap_err().to_string();
        assert_eq!(error, format!("{text:?} is no condition: a field, one of = != < <= > >=, and a value, like 'temperature > 30'"));
    }
    let same = |a: &str, b: &str| assert_eq!(a.parse::<Condition>().unwrap(), b.parse().unwrap());
    same("a='b'", "a = b");
    same("a = \"b\"", "a = b");
    assert_ne!("a = b".parse::<Condition>(), "a = 'b ".parse());
}
