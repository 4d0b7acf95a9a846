/** The words of a text, in order: a list that reads better without quotes. */
export const words = (text = ""): readonly string[] => text.split(/\s+/).filter(Boolean);
