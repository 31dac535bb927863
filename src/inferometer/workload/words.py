"""Common short English words, roughly by frequency: the vocabulary of the prompts.

With a space before it, each of them is one token in the usual byte-pair vocabularies of 32,000 entries and more (tried
on GPT-2's and Llama 2's), so that a prompt's length is known without a tokenizer at hand. `OPENERS` are those that are one
token without the space too, so that a prompt may begin with them. Where a tokenizer is given, all this is checked
again, and the words that do not hold are left out.
"""

from __future__ import annotations

_OPENERS = """
the of and to in is that for it as was with be by on not he his but at are this have from or had
an they which one you were all her she there would their we him been has when who will no more if
out so up said what its about than into them can only other time new some could these two may
first then do any like my now over such our man me even most made after also did many off before
must well back through years much where your way down should because long each just state those
people too how little good world make very year still see own work men day get here between both
life being under three never know same last another while us might great go come since against
right take used few house use place during without again home around small found part school every
upon once thought went does say got water left room number why always put think until set enough
far hand head yet system better name told nothing night end called eyes find going look later
point city next program business give group days young let word present order second rate face per
often things early white case large big need four within felt children along saw best church ever
power light family want interest members mind country area done turned although open service
certain kind problem different door thus help sense matter line human car law war free form feet
full keep music five stood known true above cost money example action party body held seen short
making study today half perhaps words question six air having real level local field book move
close woman quite hard near mother boy behind girl dark act job father week rest age history
public story front research able common change death strong land surface art working south green
sound plan cold north single street love available table value paper clear fact process control
office player game team read write ground special river stop late start model test tree view feel
fire record force court term reason sea figure market trade west east hold build third run past
red play black blue kept support final nature tell century position letter letters section seven
eight nine ten road wall floor window glass horse hill lake forest stone wood metal gold silver
iron board bridge station train ship boat plane wheel engine machine tool box bag cup plate chair
bed clock phone radio camera screen page list map note image picture film song ball race goal
score match season club winner doctor student worker driver writer artist actor king lord leader
member friend enemy host owner client brother son daughter husband wife baby child adult person
police guard president bank shop store farm hospital library college class degree course grade
skill method result data source code file version error design feature release update user server
network message request answer reply report review comment article chapter title author editor
reader language verb text speech voice tone color shape size weight height width depth length
speed distance space center edge side top bottom inside outside middle step stage phase cycle
period minute hour month spring winter morning event trip travel flight ticket border culture
custom faith bread egg meat fish rice fruit apple orange oil wine cook touch sight memory dream
sleep walk jump ride drive fly fall rise grow break fix destroy create search seek win fight
attack protect save kill hate agree define count add equal sum total average limit range scale
unit factor percent angle circle square cube graph chart sun moon star planet earth sky cloud rain
wind storm ice heat energy gas liquid solid atom cell drug blood skin hair eye ear mouth neck arm
finger heart leg foot brain animal dog cat bird cow bear mouse rat plant flower grass leaf root
seed soft quiet quick slow warm hot cool dry clean dirty empty heavy sharp flat round straight
rough deep wide thin tall high low rich poor expensive easy simple complex safe happy fair wise
smart famous popular modern recent current future former main major basic general specific similar
extra daily regular normal usual unique perfect wrong correct likely necessary important
successful natural social political economic legal medical physical mental personal private
national international official foreign central western upper lower inner outer really almost soon
maybe either nor though unless whether instead rather usually actually probably especially
together away forward ahead everyone someone anything everything something whose ask call try
leave turn show mean bring begin talk sit stand meet include continue learn lead watch follow
allow speak offer remember consider buy wait die send reach suggest raise pass sell require pull
push pick wear carry throw catch drop cut cover draw hang hide join accept warn thank return
repeat replace improve develop collect share connect mix fill pour press shut lock burn shoot hit
beat kick laugh cry sing notice check handle complete fail miss pay rent guide avoid escape exist
depend cause effect impact damage benefit chance choice option knowledge evidence proof truth lie
secret rule policy duty freedom peace justice crime prison budget tax income profit loss credit
price sale product brand company task project target campaign vote election issue threat risk
security defense weapon gun bomb nuclear military mission command base camp zone region capital
urban path track route tower castle gate hall dress coat hat boot ring pocket button steel sand
mud dust ash coal digital online internet email software computer device electric switch click
link download upload browser password account profile folder document format print copy paste
delete insert edit select menu icon label tag column row index query database
"""
_OTHERS = """
came himself however took asked knew toward several become least seemed others began means whole
itself across taken believe hear idea provide cannot village island mountain garden lamp dance
sport teacher singer queen prince lady judge lawyer guest customer partner sister crowd army
soldier officer captain minister council hotel factory museum university exam talent theory signal
novel poem sentence corner beginning finish moment summer evening meeting journey tour tradition
religion prayer temple milk sugar salt coffee tea dinner breakfast kitchen taste hearing invent
discover explore lose defend hurt suffer enjoy fear hope wish wonder expect suppose guess doubt
argue discuss explain describe compare contrast measure subtract multiply divide ratio triangle
curve snow gene virus disease medicine nose tongue sheep insect loud wet smooth narrow thick cheap
difficult dangerous sick sad angry afraid proud brave cruel honest stupid ancient previous minor
particular various entire annual strange rare exact possible useful domestic northern southern
eastern already neither indeed therefore otherwise quickly slowly easily clearly simply nearly
exactly finally certainly recently apart abroad anywhere everywhere somewhere anyone nobody
herself themselves myself yourself whom happen seem understand spend appear serve remain decide
paint choose refuse admit promise visit marry reduce increase produce deliver gather separate
combine smile shout listen realize imagine forget recognize identify prove solve prepare manage
operate perform achieve succeed waste treat borrow teach advise assist prevent occur belong
contain consist involve affect influence advantage decision opinion belief victim witness suspect
loan firm industry career strategy candidate debate crisis conflict district county province rural
coast beach ocean valley desert cave palace roof mirror soap concrete brick smoke website hardware
laptop keyboard battery cable symbol
"""

OPENERS: tuple[str, ...] = tuple(_OPENERS.split())
WORDS: tuple[str, ...] = (*OPENERS, *_OTHERS.split())
