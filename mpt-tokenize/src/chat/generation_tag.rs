//! `{% generation %}`, with which templates of transformers mark what an assistant says; it changes nothing of the text.

/// What stands for the two tags: a condition that holds, which has the same effect on white space.
const TAGS: [(&str, &str); 2] = [("generation", "if true"), ("endgeneration", "endif")];

/// The template without the tags, which only say where masks of losses begin and end.
pub(super) fn replaced(source: &str) -> String {
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

/// Of what follows `{%`: what stands before the tag's name, what stands for the name, and what comes after it. `None` where
/// it is another tag.
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
    use super::replaced;

    #[test]
    fn tags_are_replaced_and_all_else_stays() {
        let source =
            "{% generation %}a{%- generation -%}b{% endgeneration -%}{%endgeneration%}{{ generation }}";
        let expected = "{% if true %}a{%- if true -%}b{% endif -%}{%endif%}{{ generation }}";
        assert_eq!(replaced(source), expected);
        for other in ["", "{%", "{% generation", "{% generations %}", "{% if generation %}x{% endif %}"] {
            assert_eq!(replaced(other), other);
        }
    }
}
