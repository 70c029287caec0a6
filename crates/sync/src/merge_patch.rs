//! JSON merge patches, RFC 7396: an object patches member by member, `null` deletes, anything else replaces.
//!
//! They recurse no deeper than values nest, which is bounded where values are read.

use edgeward_model::{Object, Value};

/// The value after a patch of `before`; none when the patch deletes it.
pub(crate) fn apply(before: Option<Value>, patch: &Value) -> Option<Value> {
    match (before, patch) {
        (_, Value::Null) => None,
        (Some(Value::Object(before)), Value::Object(patch)) => Some(Value::Object(apply_object(before, patch))),
        // What is no object counts as an empty one, so that the deletions in the patch do not stay in it.
        (_, Value::Object(patch)) => Some(Value::Object(apply_object(Object::default(), patch))),
        (_, patch) => Some(patch.clone()),
    }
}

/// The object after a patch.
pub(crate) fn apply_object(mut before: Object, patch: &Object) -> Object {
    for (name, patch) in &patch.0 {
        if let Some(after) = apply(before.0.remove(name), patch) {
            before.0.insert(name.clone(), after);
        }
    }
    before
}

/// The patch that leads from one value to another. None when no patch can: one cannot say a member that is `null`.
pub(crate) fn diff(before: Option<&Value>, after: &Value) -> Option<Value> {
    match (before, after) {
        (_, Value::Null) => None,
        (Some(Value::Object(before)), Value::Object(after)) => diff_objects(before, after).map(Value::Object),
        (_, Value::Object(after)) => diff_objects(&Object::default(), after).map(Value::Object),
        (_, after) => Some(after.clone()),
    }
}

fn diff_objects(before: &Object, after: &Object) -> Option<Object> {
    let gone = before.0.keys().filter(|name| !after.0.contains_key(*name)).map(|name| Some((name.clone(), Value::Null)));
    let other = after.0.iter().filter(|(name, value)| before.0.get(*name) != Some(value));
    let other = other.map(|(name, value)| Some((name.clone(), diff(before.0.get(name), value)?)));
    gone.chain(other).collect::<Option<_>>().map(Object)
}

/// Whether one patch can say what two do. None can where the first makes a member no object and the second patches it as one: what the
/// member held before must go, and a patch cannot name it.
pub(crate) fn can_compose(first: &Object, second: &Object) -> bool {
    second.0.iter().all(|(name, later)| match (first.0.get(name), later) {
        (Some(Value::Object(earlier)), Value::Object(later)) => can_compose(earlier, later),
        (earlier, later) => earlier.is_none() || !matches!(later, Value::Object(_)),
    })
}

/// Makes one patch that does what two do, one after the other, where one can.
pub(crate) fn compose(first: &mut Object, second: Object) {
    for (name, later) in second.0 {
        match (first.0.get_mut(&name), later) {
            (Some(Value::Object(earlier)), Value::Object(later)) => compose(earlier, later),
            (Some(earlier), later) => *earlier = later,
            (None, later) => drop(first.0.insert(name, later)),
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::python_json;
    use proptest::{collection::btree_map, prelude::*, sample::select};

    use super::*;

    fn read(text: &str) -> Value {
        python_json::read(text).expect(text)
    }

    #[test]
    fn the_examples_of_the_rfc_come_out_as_it_says() {
        for (before, patch, after) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r"{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            (r"[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            (r"{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(apply(Some(read(before)), &read(patch)), Some(read(after)), "{before} patched by {patch}");
        }
        assert_eq!(apply(Some(read(r#"{"a":"foo"}"#)), &Value::Null), None);
    }

    fn object() -> impl Strategy<Value = Object> {
        let leaf = select(vec!["null", "1", "[2]", "\"a\""]).prop_map(read);
        let value = leaf.prop_recursive(2, 8, 3, |inner| {
            btree_map(select(vec!["a", "b"]), inner, 0..3).prop_map(|members| Value::Object(Object::from_iter(members)))
        });
        btree_map(select(vec!["a", "b", "c"]), value, 0..4).prop_map(Object::from_iter)
    }

    proptest! {
        #[test]
        fn a_difference_leads_from_the_one_to_the_other((before, after) in (object(), object())) {
            if let Some(Value::Object(patch)) = diff(Some(&Value::Object(before.clone())), &Value::Object(after.clone())) {
                prop_assert_eq!(apply_object(before, &patch), after);
            }
        }

        #[test]
        fn a_composed_patch_does_what_its_two_do((before, first, second) in (object(), object(), object())) {
            let one_by_one = apply_object(apply_object(before.clone(), &first), &second);
            if can_compose(&first, &second) {
                let mut both = first;
                compose(&mut both, second);
                prop_assert_eq!(apply_object(before, &both), one_by_one);
            }
        }
    }
}
