// One Tab stop for all tiles; arrows, Home and End move between them.
const STEPS = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity}
element.addEventListener('click', ({target}) => {
  const tile = target.closest('button')
  if (tile) trigger('select', {index: Number(tile.dataset.index)})
})
element.addEventListener('focusin', ({target}) => {
  for (const tile of element.querySelectorAll('button')) tile.tabIndex = tile === target ? 0 : -1
})
element.addEventListener('keydown', (event) => {
  if (!(event.key in STEPS)) return
  const tiles = [...element.querySelectorAll('button')]
  const next = tiles.indexOf(document.activeElement) + STEPS[event.key]
  tiles[Math.min(Math.max(next, 0), tiles.length - 1)].focus()
  event.preventDefault()
})
