//! Helpers over token trees: items, groups, identifiers, literals.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Splits tokens at commas outside of brackets, including `<` and `>`.
pub(super) fn split_at_commas(tokens: TokenStream) -> Vec<TokenStream> {
    let (mut items, mut depth) = (vec![Vec::new()], 0_i32);
    for token in tokens {
        match &token {
            TokenTree::Punct(punct) if punct.as_char() == ',' && depth == 0 => {
                items.push(Vec::new());
                continue;
            }
            TokenTree::Punct(punct) if punct.as_char() == '<' => depth += 1,
            TokenTree::Punct(punct) if punct.as_char() == '>' => depth -= 1,
            _ => {}
        }
        items.last_mut().expect("there is a part").push(token);
    }
    items.into_iter().filter(|item| !item.is_empty()).map(|item| item.into_iter().collect()).collect()
}

/// Length of `pub` or `pub(super)` in tokens.
pub(super) fn visibility_length(tokens: &[TokenTree]) -> usize {
    match (ident_at(tokens, 0).as_deref(), tokens.get(1)) {
        (Some("pub"), Some(TokenTree::Group(group))) if group.delimiter() == Delimiter::Parenthesis => 2,
        (Some("pub"), _) => 1,
        _ => 0,
    }
}

/// Length of an item in tokens, up to a semicolon or a group in braces.
pub(super) fn item_length(tokens: &[TokenTree]) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Punct(punct) => punct.as_char() == ';',
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        _ => false,
    };
    tokens.iter().position(ends).map_or(tokens.len(), |at| at + 1)
}

/// First group in braces of an item.
pub(super) fn brace_group(tokens: &[TokenTree]) -> Option<Group> {
    tokens[..item_length(tokens)].iter().find_map(|token| match token {
        TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => Some(group.clone()),
        _ => None,
    })
}

/// Tokens after the `=` of a constant.
pub(super) fn constant_value(tokens: &[TokenTree]) -> TokenStream {
    let item = &tokens[..item_length(tokens)];
    let is_equals = |token: &&TokenTree| !matches!(token, TokenTree::Punct(punct) if punct.as_char() == '=');
    let value = item.iter().skip_while(is_equals).skip(1);
    value
        .filter(|token| !matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';'))
        .cloned()
        .collect()
}

/// Identifier at an index.
pub(super) fn ident_at(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at)? {
        TokenTree::Ident(ident) => Some(ident.to_string()),
        _ => None,
    }
}

/// Text of a string literal.
pub(super) fn unquote(literal: &str) -> String {
    let inner = literal.trim_start_matches('r').trim_matches('#');
    let inner = inner.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')).unwrap_or(inner);
    if literal.starts_with('r') {
        return inner.to_owned();
    }
    inner.replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\")
}
