//! Tag `{% generation %}` of transformers, which marks the assistant's text for loss masks. It does not change the output.

/// Tags and their replacements: a condition that holds, with the same effect on white space.
const TAGS: [(&str, &str); 2] = [("generation", "if true"), ("endgeneration", "endif")];

/// Template with the tags replaced.
pub(super) fn replace_tags(source: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(source.len()), source);
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        text.push_str(before);
        rest = match split_tag(tag) {
            Some((opening, instead, after)) => {
                text.extend([opening, instead]);
                after
            }
            None => tag,
        };
    }
    text.push_str(rest);
    text
}

/// Splits the text after `{%` into opening, replacement of the name, and rest; `None` for another tag.
fn split_tag(tag: &str) -> Option<(&str, &'static str, &str)> {
    let name = tag.trim_start_matches(['-', '+']).trim_start();
    let opening = &tag[..tag.len() - name.len()];
    let (name, instead) =
        TAGS.into_iter().find_map(|(known, instead)| Some((name.strip_prefix(known)?, instead)))?;
    let end = name.trim_start().trim_start_matches(['-', '+']);
    end.starts_with("%}").then_some((opening, instead, name))
}

#[cfg(test)]
mod tests {
    use super::replace_tags;

    #[test]
    fn tags_are_replaced_and_all_else_stays() {
        let source =
            "{% generation %}a{%- generation -%}b{% endgeneration -%}{%endgeneration%}{{ generation }}";
        let expected = "{% if true %}a{%- if true -%}b{% endif -%}{%endif%}{{ generation }}";
        assert_eq!(replace_tags(source), expected);
        for other in ["", "{%", "{% generation", "{% generations %}", "{% if generation %}x{% endif %}"] {
            assert_eq!(replace_tags(other), other);
        }
    }
}
