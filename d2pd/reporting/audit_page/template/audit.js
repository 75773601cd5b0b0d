// Pictures of findings: the neighbours in the viewer are those of the same rule.
for (const rule of all(".rule")) {
  const cards = all(".card", rule);
  for (const card of cards) card.querySelector(".open").addEventListener("click", () => view(cards, card));
}
