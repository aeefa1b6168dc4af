//! Values of `format` as patterns.
//!
//! What a pattern matches is always valid; some valid texts are left out where a pattern cannot tell
//! them from others (leap seconds, addresses of more than about 250 characters, IPv6 with an IPv4 tail,
//! letters beyond ASCII in `idn-` and `iri-` formats, groups in `regex`).

const DATE: &str = concat!(
    // The year 0000 is left out: few libraries know it.
    "(?:(?:[0-9]{3}[1-9]|[0-9]{2}[1-9][0-9]|[0-9][1-9][0-9]{2}|[1-9][0-9]{3})-",
    "(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)",
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))",
    // Leap years.
    "|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29)",
);
const TIME: &str =
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])";
const DURATION: &str = concat!(
    "P(?:(?:[0-9]+Y(?:[0-9]+M(?:[0-9]+D)?)?|[0-9]+M(?:[0-9]+D)?|[0-9]+D)",
    "(?:T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S))?",
    "|T(?:[0-9]+H(?:[0-9]+M(?:[0-9]+S)?)?|[0-9]+M(?:[0-9]+S)?|[0-9]+S)",
    "|[0-9]+W)",
);
/// A label of a host name without two hyphens in a row: `xn--` begins something else.
macro_rules! label {
    () => {
        "[A-Za-z0-9]{1,20}(?:-[A-Za-z0-9]{1,20}){0,2}"
    };
}
const HOSTNAME: &str = concat!(label!(), "(?:\\.", label!(), "){0,3}");
const EMAIL: &str = concat!(
    "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}(?:\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}){0,2}@",
    label!(),
    "(?:\\.",
    label!(),
    "){0,2}",
);
const IPV4: &str =
    "(?:(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])";
macro_rules! hex {
    () => {
        "[0-9a-fA-F]{1,4}"
    };
}
const IPV6: &str = concat!(
    "(?:(?:",
    hex!(),
    ":){7}",
    hex!(),
    "|(?:",
    hex!(),
    ":){1,7}:",
    "|(?:",
    hex!(),
    ":){1,6}:",
    hex!(),
    "|(?:",
    hex!(),
    ":){1,5}(?::",
    hex!(),
    "){1,2}",
    "|(?:",
    hex!(),
    ":){1,4}(?::",
    hex!(),
    "){1,3}",
    "|(?:",
    hex!(),
    ":){1,3}(?::",
    hex!(),
    "){1,4}",
    "|(?:",
    hex!(),
    ":){1,2}(?::",
    hex!(),
    "){1,5}",
    "|",
    hex!(),
    ":(?::",
    hex!(),
    "){1,6}",
    "|:(?::",
    hex!(),
    "){1,7}|::)",
);
const UUID: &str = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}";
/// A character of a path segment (RFC 3986 `pchar`).
macro_rules! pchar {
    () => {
        "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
    };
}
const URI: &str = concat!(
    "[A-Za-z][A-Za-z0-9+.-]*:(?://(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+(?::[0-9]{1,4})?(?:/",
    pchar!(),
    "*)*",
    "|",
    pchar!(),
    "+(?:/",
    pchar!(),
    "*)*)",
    "(?:\\?(?:",
    pchar!(),
    "|[/?])*)?(?:#(?:",
    pchar!(),
    "|[/?])*)?",
);
const JSON_POINTER: &str = "(?:/(?:[^~/]|~[01])*)*";

/// A reference relative to something, without a template's braces and without letters beyond ASCII, so that
/// it is also one of the kinds that allow more.
const RELATIVE: &str = concat!(
    // Before the first slash a colon would end a scheme; two slashes would begin a host.
    "(?:/|/?(?:[A-Za-z0-9._~!$&'()*+,;=@-]|%[0-9A-Fa-f]{2})+(?:/",
    pchar!(),
    "+)*/?)?(?:\\?(?:",
    pchar!(),
    "|[/?])*)?(?:#(?:",
    pchar!(),
    "|[/?])*)?",
);
const RELATIVE_JSON_POINTER: &str = "(?:0|[1-9][0-9]{0,8})(?:#|(?:/(?:[^~/]|~[01])*)*)";
/// Regular expressions without groups, which every engine reads.
const REGEX: &str = concat!(
    "\\^?(?:(?:[A-Za-z0-9_ /:;,@%&=~<>'\"!.-]|\\\\[dDwWsS.*+?^$|/()\\[\\]{}]",
    "|\\[\\^?(?:[A-Za-z0-9_.]|\\\\[dws]){1,20}\\])(?:[*+?]|\\{[1-9]\\})?)*\\$?",
);

/// The pattern of a format, for the whole string; none for words that no edition of JSON Schema defines.
pub(super) fn pattern(format: &str) -> Option<String> {
    let body = match format {
        "date" => DATE.to_owned(),
        "time" => TIME.to_owned(),
        "date-time" => format!("{DATE}T{TIME}"),
        "duration" => DURATION.to_owned(),
        "email" | "idn-email" => EMAIL.to_owned(),
        "hostname" | "idn-hostname" => HOSTNAME.to_owned(),
        "ipv4" => IPV4.to_owned(),
        "ipv6" => IPV6.to_owned(),
        "uuid" => UUID.to_owned(),
        "uri" | "iri" => URI.to_owned(),
        "uri-reference" | "iri-reference" | "uri-template" => format!("(?:{URI}|{RELATIVE})"),
        "regex" => REGEX.to_owned(),
        "relative-json-pointer" => RELATIVE_JSON_POINTER.to_owned(),
        "json-pointer" => JSON_POINTER.to_owned(),
        _ => return None,
    };
    Some(format!("^(?:{body})$"))
}
