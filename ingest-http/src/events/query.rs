//! The query of a URL, decoded as forms are.

use std::borrow::Cow;

/// Pairs of name and value; a name without `=` has an empty value.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|part| !part.is_empty()).map(|part| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (decode(name), decode(value))
    })
}

/// Percent signs and plus signs; what is no valid escape stays as it is, and what is no UTF-8 becomes U+FFFD.
pub(crate) fn decode(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|b| matches!(b, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%').and_then(|digits| {
            let mut one = [0];
            hex::decode_to_slice(digits, &mut one).ok().map(|()| one[0])
        });
        match escaped {
            Some(value) => {
                out.push(value);
                at += 3;
            }
            None => {
                out.push(if *byte == b'+' { b' ' } else { *byte });
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_decode_as_forms_do() {
        let read = |q| pairs(q).map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("|");
        assert_eq!(read("a=1&b=x%20y+z&&c&d=%zz%"), "a=1|b=x y z|c=|d=%zz%");
        assert_eq!(read("k=%C3%A4&bad=%ff"), "k=ä|bad=\u{fffd}");
        assert_eq!(read("%64evice=a=b"), "device=a=b");
    }
}
