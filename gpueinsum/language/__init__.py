"""The words: subscripts, steps and plans; values that hold no array and know no device."""
