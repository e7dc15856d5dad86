// Paint white where an image acts. Every change is uploaded; the value that comes back names its
// upload, so that only what others set (cleared, taken from an image's settings) is drawn here.
const AREAS = {left: [0, 0, .5, 1], right: [.5, 0, .5, 1], top: [0, 0, 1, .5], bottom: [0, .5, 1, .5]}
const mine = new Set()
const canvas = () => element.querySelector('canvas')
const pen = () => canvas().getContext('2d')
let last = null

const point = ({clientX, clientY}) => {
  const {left, top, width, height} = canvas().getBoundingClientRect()
  return [(clientX - left) / width * canvas().width, (clientY - top) / height * canvas().height]
}
const line = (from, to) => {
  const brush = pen()
  const erase = element.querySelector('.erase').getAttribute('aria-pressed') === 'true'
  brush.lineCap = 'round'
  brush.lineWidth = element.querySelector('input').value / 100 * canvas().width
  brush.strokeStyle = erase ? 'black' : 'white'
  brush.beginPath()
  brush.moveTo(...from)
  brush.lineTo(...to)
  brush.stroke()
}
const fill = (colour, [x, y, width, height] = [0, 0, 1, 1]) => {
  const side = canvas().width
  pen().fillStyle = colour
  pen().fillRect(x * side, y * side, width * side, height * side)
}
const send = () => canvas().toBlob(async (file) => {
  const answer = await post(file, 'mask.png')
  mine.add(answer.token)
  trigger('upload', answer)
})
const draw = () => {
  const {by, mask, told} = JSON.parse(props.value)
  element.querySelector('.told').textContent = told
  if (mine.has(by)) return
  fill('black')
  if (!mask) return
  const image = new Image()
  image.onload = () => pen().drawImage(image, 0, 0, canvas().width, canvas().height)
  image.src = mask
}

element.addEventListener('pointerdown', (event) => {
  if (event.target !== canvas() || event.button) return
  canvas().setPointerCapture(event.pointerId)
  last = point(event)
  line(last, last)
})
element.addEventListener('pointermove', (event) => {
  if (!last) return
  const next = point(event)
  line(last, next)
  last = next
})
for (const end of ['pointerup', 'pointercancel']) {
  element.addEventListener(end, () => {
    if (last) send()
    last = null
  })
}
element.addEventListener('click', ({target}) => {
  const button = target.closest('button')
  if (!button) return
  if (button.classList.contains('erase')) {
    button.setAttribute('aria-pressed', button.getAttribute('aria-pressed') !== 'true')
  } else if (button.dataset.area) {
    fill('white', AREAS[button.dataset.area])
    send()
  } else {
    fill('black')
    trigger('clear')
  }
})
fill('black')
draw()
watch('value', draw)
