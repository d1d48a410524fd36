"""The one line that fastText reads of a document, the same for training and scoring."""

LABEL = "__label__"  # fastText takes every word that begins so for a label
END = "</s>"  # and reads no further than this word


def to_line(text: str) -> str:
    """The text on one line: every run of white space is one space, and no word of it means something to fastText.

    Nothing else changes: no word segmentation, because characters reach the model as n-grams (recipes.md 4.1). A line
    may be empty.
    """
    line = " ".join(text.replace("\0", " ").split())
    if LABEL in line:
        line = line.replace(LABEL, "_label_")
    if END in line:
        line = line.replace(END, "< /s>")
    return line
