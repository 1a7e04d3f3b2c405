//! Diagnostics as text, in the manner of rustc.

use super::{Diagnostic, Place, Severity, Sources};
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use std::ops::Range;

/// Lines longer than this are shown in part, in characters.
const WIDTH: usize = 120;

/// One diagnostic: `severity[code]: message`, the place, the line with carets, notes and hints.
#[must_use]
pub fn render(diagnostic: &Diagnostic, sources: &Sources, colour: bool) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level
        .primary_title(&diagnostic.message)
        .id(diagnostic.code.id);
    let mut group = Group::with_title(title);
    let mut marks = Vec::new();
    if let Some(place) = &diagnostic.place {
        marks.push((place, diagnostic.label.as_deref(), AnnotationKind::Primary));
    }
    for (place, label) in &diagnostic.related {
        marks.push((place, Some(label.as_str()), AnnotationKind::Context));
    }
    while !marks.is_empty() {
        let file = marks[0].0.file.clone();
        let (here, others) = marks
            .into_iter()
            .partition(|(place, ..)| place.file == file);
        marks = others;
        group = add_file(group, &here, sources);
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note));
    }
    for hint in &diagnostic.hints {
        group = group.element(Level::HELP.message(hint));
    }
    let renderer = match colour {
        true => Renderer::styled(),
        false => Renderer::plain(),
    };
    renderer
        .decor_style(DecorStyle::Ascii)
        .term_width(WIDTH)
        .render(&[group])
}

type Mark<'a> = (&'a Place, Option<&'a str>, AnnotationKind);

fn add_file<'a>(group: Group<'a>, marks: &[Mark<'a>], sources: &'a Sources) -> Group<'a> {
    let Some((first, ..)) = marks.first() else {
        return group;
    };
    let path = first.file.display().to_string();
    let text = match sources.get(&first.file) {
        Some(text) if first.line > 0 => text,
        _ => {
            let mut origin = Origin::path(path);
            if first.line > 0 {
                origin = origin.line(first.line).char_column(first.column);
            }
            return group.element(origin);
        }
    };
    // Only the lines concerned are handed on: the renderer looks at all it gets.
    let spans: Vec<Range<usize>> = marks
        .iter()
        .map(|(place, ..)| first_line(text, place))
        .collect();
    let start = spans.iter().map(|span| span.start).min().unwrap_or(0);
    let end = spans.iter().map(|span| span.end).max().unwrap_or(start);
    let start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let end = text[end..].find('\n').map_or(text.len(), |at| end + at);
    let line = 1 + text[..start].bytes().filter(|b| *b == b'\n').count();
    let annotations = marks.iter().zip(&spans).map(|((_, label, kind), span)| {
        let annotation: Annotation<'_> = kind.span(span.start - start..span.end - start);
        match label {
            Some(label) => annotation.label(*label),
            None => annotation,
        }
    });
    let snippet = Snippet::source(&text[start..end])
        .line_start(line)
        .path(path);
    group.element(snippet.annotations(annotations))
}

/// The part of the place that lies on its first line: a block of twenty lines
/// needs no carets under each.
fn first_line(text: &str, place: &Place) -> Range<usize> {
    let start = text.floor_char_boundary(place.start.min(text.len()));
    let end = text.floor_char_boundary(place.end.clamp(start, text.len()));
    let cut = text[start..end]
        .find(['\n', '\r'])
        .map_or(end, |at| start + at);
    start..cut
}

/// All diagnostics, a blank line between, and a last line that counts them.
#[must_use]
pub fn render_all(diagnostics: &[Diagnostic], sources: &Sources, colour: bool) -> String {
    let mut out = String::new();
    for diagnostic in diagnostics {
        out.push_str(&render(diagnostic, sources, colour));
        out.push_str("\n\n");
    }
    let count = |severity| {
        let n = diagnostics
            .iter()
            .filter(|d| d.severity == severity)
            .count();
        (n > 0).then(|| format!("{n} {}{}", severity.name(), if n == 1 { "" } else { "s" }))
    };
    let counts: Vec<String> = [count(Severity::Error), count(Severity::Warning)]
        .into_iter()
        .flatten()
        .collect();
    if !counts.is_empty() {
        out.push_str(&counts.join(", "));
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::codes;

    #[test]
    fn a_diagnostic_without_a_place_is_its_message_and_hints() {
        let diagnostic =
            Diagnostic::error(&codes::FILE_UNREADABLE, "no folder `x`").hint("make it");
        assert_eq!(
            render(&diagnostic, &Sources::default(), false),
            "error[P0108]: no folder `x`\n |\n = help: make it"
        );
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        let diagnostic = Diagnostic::warning(&codes::UNKNOWN_FIELD, "m");
        assert!(!render(&diagnostic, &Sources::default(), false).contains('\x1b'));
        assert!(render(&diagnostic, &Sources::default(), true).contains('\x1b'));
    }

    proptest::proptest! {
        #[test]
        fn no_text_and_no_range_makes_it_panic(
            text in "(?s).{0,80}",
            start in 0usize..100,
            length in 0usize..100,
        ) {
            let mut sources = Sources::default();
            sources.add("f", text.clone());
            let place = Place::new("f", &text, start..start + length);
            let diagnostic = Diagnostic::error(&codes::YAML_SYNTAX, "m")
                .at(place.clone())
                .related(place, "here");
            let _ = render(&diagnostic, &sources, false);
            let _ = render(&diagnostic, &Sources::default(), true);
        }
    }
}
